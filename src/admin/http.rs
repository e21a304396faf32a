//! The HTTP server: `/metrics`, `/livez`, `/readyz`, `/status`.
//!
//! `/livez` answers as long as the process serves at all. `/readyz` answers 200 when every lane has its partitions,
//! reaches its sink and has no stopped table; else 503 with the same body as `/status`.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use super::status::StatusBoard;

/// What the endpoints answer from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The metrics of the process.
    pub metrics: Metrics,
    /// The state of the lanes.
    pub board: StatusBoard,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (setting admin.listen): {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Binds `address` and serves in the background until the runtime ends. Returns the bound address.
///
/// # Errors
/// Where the address cannot be bound.
pub async fn serve(address: SocketAddr, admin: Admin) -> Result<SocketAddr, ListenError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
    let bound = listener.local_addr().map_err(|source| ListenError { address, source })?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(|State(admin): State<Admin>| async move { Json(admin.board.snapshot()) }))
        .with_state(admin);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(bound)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let status = admin.board.snapshot();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(status)).into_response()
}
