//! A web server over a directory: entity tags, conditional requests, and a record of what was asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Method and path of a request, and the status of its answer.
pub type Asked = (String, u16);

#[derive(Clone)]
struct Files {
    directory: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub struct FileServer {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl FileServer {
    pub async fn start(directory: impl Into<PathBuf>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let files = Files { directory: directory.into(), asked: Arc::clone(&asked) };
        let router = Router::new().fallback(answer).with_state(files);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Self { address, asked, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(files): State<Files>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let wanted = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let (status, tag, body) = match std::fs::read(files.directory.join(&path)) {
        Err(_) => (StatusCode::NOT_FOUND, None, Vec::new()),
        Ok(bytes) => {
            let tag = format!("\"{}\"", hex::encode(Sha256::digest(&bytes)));
            if wanted == Some(tag.as_str()) {
                (StatusCode::NOT_MODIFIED, Some(tag), Vec::new())
            } else {
                (StatusCode::OK, Some(tag), bytes)
            }
        }
    };
    files.asked.lock().unwrap().push((format!("{} /{path}", request.method()), status.as_u16()));
    let mut response = Response::builder().status(status).header(header::CONTENT_LENGTH, body.len());
    if let Some(tag) = tag {
        response = response.header(header::ETAG, tag);
    }
    response.body(Body::from(body)).unwrap()
}
