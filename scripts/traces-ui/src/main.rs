use otlp_embedded::{Config, State, TraceServiceImpl, TraceServiceServer, ui_app};
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let state = State::new(Config { max_length: 10_000, max_memory_usage: 1 << 28 });
    let ui = tokio::net::TcpListener::bind(&addresses[1]).await?;
    tokio::spawn(axum::serve(ui, ui_app(state.clone(), "/")).into_future());
    tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(TraceServiceImpl::new(state)))
        .serve(addresses[0].parse()?)
        .await?;
    Ok(())
}
