//! A web server over a directory, with entity tags and conditional requests, which notes what is asked of it and can
//! be told to misbehave.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// As a server whose backend is gone.
    Down,
    /// Bundles lose their second half.
    CutShort,
    /// Bundles have one bit flipped.
    Corrupt,
    /// Entity tags are made of the length alone, as if all was written in one second.
    CoarseTags,
}

#[derive(Debug)]
pub(crate) struct FileServer {
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    mood: Mood,
    /// Path, status and bytes of every answer.
    answers: Vec<(String, u16, usize)>,
}

impl FileServer {
    pub(crate) async fn start(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let shared = Arc::new(Mutex::new(Shared { directory, mood: Mood::Well, answers: Vec::new() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Self { address, task, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.shared.lock().unwrap().mood = mood;
    }

    /// What was asked since the last time, and with which status it was answered.
    pub(crate) fn asked(&self) -> Vec<(String, u16)> {
        self.answers().into_iter().map(|(path, status, _)| (format!("GET /{path}"), status)).collect()
    }

    /// What was answered since the last time.
    pub(crate) fn answers(&self) -> Vec<(String, u16, usize)> {
        std::mem::take(&mut self.shared.lock().unwrap().answers)
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, uri: Uri, headers: HeaderMap) -> Response {
    let mut shared = shared.lock().unwrap();
    let path = uri.path().trim_start_matches('/').to_owned();
    let asked = headers.get(header::IF_NONE_MATCH).map(|tag| tag.to_str().unwrap().to_owned());
    let (status, tag, mut body) = match std::fs::read(shared.directory.join(&path)) {
        _ if shared.mood == Mood::Down => (StatusCode::SERVICE_UNAVAILABLE, String::new(), Vec::new()),
        Err(_) => (StatusCode::NOT_FOUND, String::new(), Vec::new()),
        Ok(bytes) => {
            let tag = match shared.mood {
                Mood::CoarseTags => format!("\"{:x}\"", bytes.len()),
                _ => format!("\"{}\"", hex::encode(&Sha256::digest(&bytes)[..8])),
            };
            if asked.as_ref() == Some(&tag) {
                (StatusCode::NOT_MODIFIED, tag, Vec::new())
            } else {
                (StatusCode::OK, tag, bytes)
            }
        }
    };
    if path.ends_with(".bundle") && !body.is_empty() {
        match shared.mood {
            Mood::CutShort => body.truncate(body.len() / 2),
            Mood::Corrupt => {
                let middle = body.len() / 2;
                body[middle] ^= 1;
            }
            Mood::Well | Mood::Down | Mood::CoarseTags => {}
        }
    }
    shared.answers.push((path, status.as_u16(), body.len()));
    (status, [(header::ETAG, tag), (header::LAST_MODIFIED, "Thu, 01 Jan 1970 00:00:00 GMT".to_owned())], body)
        .into_response()
}
