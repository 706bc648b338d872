//! The constant responder: the same service and messages, and an answer that was there before the question. What a
//! client reaches against it is what this machine can carry.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::pin::Pin;

use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::proto::v1;
use crate::proto::v1::authorization_service_server::{AuthorizationService, AuthorizationServiceServer};

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Constant(v1::CheckResponse);

/// The service on a Unix socket of its own, in threads of its own; ends with this value.
#[derive(Debug)]
pub struct Responder {
    dir: PathBuf,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Constant {
    /// An answer as long as a usual one.
    pub fn new() -> Self {
        let group = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg-0017";
        let authorization = "providers/Microsoft.Authorization";
        Self(v1::CheckResponse {
            result: Some(v1::CheckResult {
                decision: v1::Decision::Allowed.into(),
                reason_code: v1::ReasonCode::RoleAssignment.into(),
                reason: format!(
                    "role \"Reader\", assigned to the subject at {group}, grants control-plane action \
                     Microsoft.Storage/storageAccounts/read"
                ),
                role_assignment_id: format!(
                    "{group}/{authorization}/roleAssignments/22222222-2222-4222-8222-222222222222"
                ),
                role_definition_id: format!(
                    "/{authorization}/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
                ),
                ..v1::CheckResult::default()
            }),
            policy: Some(v1::PolicyIdentity {
                serial: 0,
                digest: format!("sha256:{}", "0".repeat(64)),
                generation: 1,
                freshness: v1::PolicyFreshness::Fresh.into(),
                age_seconds: 0,
            }),
            request_id: String::new(),
        })
    }

    /// As a service of tonic.
    pub fn service(self) -> AuthorizationServiceServer<Self> {
        AuthorizationServiceServer::new(self)
    }
}

impl Default for Constant {
    fn default() -> Self {
        Self::new()
    }
}

fn not_this() -> Status {
    Status::unimplemented("the constant responder answers Check, BatchCheck and CheckStream")
}

#[tonic::async_trait]
impl AuthorizationService for Constant {
    async fn check(&self, _: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let items = request.into_inner().items.len();
        let outcome = self.0.result.clone().map(v1::batch_check_item_result::Outcome::Result);
        Ok(Response::new(v1::BatchCheckResponse {
            results: vec![v1::BatchCheckItemResult { outcome }; items],
            policy: self.0.policy.clone(),
            request_id: String::new(),
            item_limit: u32::MAX,
        }))
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(not_this())
    }

    async fn list_permissions(
        &self,
        _: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        Err(not_this())
    }

    async fn list_principals(
        &self,
        _: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        Err(not_this())
    }

    async fn get_policy_status(
        &self,
        _: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        Err(not_this())
    }

    type CheckStreamStream = Pin<Box<dyn Stream<Item = Result<v1::CheckStreamResponse, Status>> + Send>>;

    async fn check_stream(
        &self,
        request: Request<tonic::Streaming<v1::CheckStreamRequest>>,
    ) -> Result<Response<Self::CheckStreamStream>, Status> {
        let Self(constant) = self.clone();
        let mut first = true;
        let answers = request.into_inner().map(move |message| {
            let outcome = constant.result.clone().map(v1::check_stream_answer::Outcome::Result);
            let mut policy = constant.policy.clone();
            // As the contract has it: who they are is said once.
            if !std::mem::take(&mut first)
                && let Some(policy) = &mut policy
            {
                policy.digest.clear();
            }
            message.map(|message| v1::CheckStreamResponse {
                answers: message
                    .questions
                    .iter()
                    .map(|question| v1::CheckStreamAnswer { id: question.id, outcome: outcome.clone() })
                    .collect(),
                policy,
                question_limit: 0,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type WatchPolicyStream = tokio_stream::Empty<Result<v1::WatchPolicyResponse, Status>>;

    async fn watch_policy(
        &self,
        _: Request<v1::WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        Err(not_this())
    }
}

impl Responder {
    /// Binds the socket, then answers.
    ///
    /// # Errors
    ///
    /// This machine has no room for a socket, a thread or a runtime.
    pub fn start() -> io::Result<Self> {
        let name = format!("postern-load-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let dir = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let mut responder = Self { dir, stop: CancellationToken::new(), thread: None };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = {
            let _in_the_runtime = runtime.enter();
            tokio::net::UnixListener::bind(responder.dir.join("constant.sock"))?
        };
        let stop = responder.stop.clone();
        let serve = move || {
            runtime.block_on(async {
                let served = Server::builder()
                    .add_service(Constant::new().service())
                    .serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! {
                    _ended = served => {}
                    () = stop.cancelled() => {}
                }
            });
        };
        responder.thread = Some(std::thread::Builder::new().name("load-constant".to_owned()).spawn(serve)?);
        Ok(responder)
    }

    /// Where it listens, as `--connect` takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.dir.join("constant.sock").display())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}
