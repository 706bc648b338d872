//! Questions whose answers are lists: asked page by page until everything is there, of a directory in this process
//! or of a sidecar.

use clap::ArgMatches;
use tonic::Status;
use tonic::transport::Channel;

use crate::cli::{Exit, print_error};
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;
use crate::server::explain::Unanswered;

use super::question::flag_of;
use super::{AskArgs, Directory, Here, MOST_BYTES, NoAnswer, Whom, tell_failure, tell_usage};

/// A list, as far as it is gathered.
pub(super) trait Listing {
    /// The message that asks for a page.
    type Request: Clone;
    /// The message that is one.
    type Page;
    /// The request, read.
    type Asked<'a>;

    /// What to ask next; `None`: all of it is here.
    fn next(&self) -> Option<Self::Request>;

    /// Takes a page, and notes what to ask next.
    fn take(&mut self, page: Self::Page) -> Result<(), Status>;

    /// Reads a request as calls are read.
    fn read(request: &Self::Request) -> Result<Self::Asked<'_>, Unanswered>;

    /// Answers it in this process.
    fn here(here: &Here, asked: &Self::Asked<'_>) -> Result<Self::Page, Unanswered>;

    /// Asks a sidecar.
    async fn call(
        client: &mut AuthorizationServiceClient<Channel>,
        request: Self::Request,
    ) -> Result<tonic::Response<Self::Page>, Status>;

    /// Prints all of it.
    fn tell(&self, json: bool) -> std::io::Result<Exit>;
}

pub(super) fn run<L: Listing>(mut list: L, ask: &AskArgs, matches: &ArgMatches) -> Exit {
    let whom = match ask.whom(matches) {
        Ok(whom) => whom,
        Err(message) => return tell_usage(&[message.to_owned()]),
    };
    let asked = match whom {
        Whom::Policy(directory) => here(directory, &mut list),
        Whom::Sidecar(sidecar) => sidecar.call(async |channel| {
            let mut client = AuthorizationServiceClient::new(channel).max_decoding_message_size(MOST_BYTES);
            while let Some(request) = list.next() {
                list.take(L::call(&mut client, request).await?.into_inner())?;
            }
            Ok(tonic::Response::new(()))
        }),
    };
    let told = match &asked {
        Ok(()) => list.tell(ask.json),
        Err(no_answer) => Ok(tell_failure(no_answer, ask.json, flag_of)),
    };
    told.unwrap_or_else(|error| {
        print_error(&error);
        Exit::Failed
    })
}

/// Answers in this process, on the road that calls take.
fn here<L: Listing>(directory: Directory<'_>, list: &mut L) -> Result<(), NoAnswer> {
    let mut here = None;
    let mut directory = Some(directory);
    while let Some(request) = list.next() {
        let refused = |unanswered: Unanswered| NoAnswer::Status(unanswered.into_status());
        // A malformed question is told without reading the directory.
        let asked = L::read(&request).map_err(refused)?;
        if let Some(directory) = directory.take() {
            here = Some(directory.open()?);
        }
        let Some(here) = &here else { return Ok(()) };
        list.take(L::here(here, &asked).map_err(refused)?).map_err(NoAnswer::Status)?;
    }
    Ok(())
}
