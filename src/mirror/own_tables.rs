//! The tables of our own in the target database: created where they are missing.
//!
//! The right to create is needed only where something is missing. Where it is missing too, the error has the statement, so
//! that somebody who has it can run it once, and the mirror then goes on with fewer rights.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::names::TargetName;
use super::sqlstate::{self, Trouble};

/// Attempts: the statement makes a schema and several tables, and each of them can be lost to another instance.
const ROUNDS: usize = 8;

/// Creates the tables of these names where one is missing. `what` they are is said in errors, `ddl` creates them all.
pub(super) async fn ensure(
    client: &Client,
    names: &[&TargetName],
    what: &str,
    ddl: &str,
) -> Result<(), Trouble> {
    let mut round = 1;
    while !are_there(client, names).await? {
        match client.batch_execute(ddl).await {
            Ok(()) => break,
            // Another instance that starts at the same time was faster.
            Err(error) if round < ROUNDS && sqlstate::lost_race(&error) => round += 1,
            Err(error) => return Err(refusal(error, what, ddl)),
        }
    }
    Ok(())
}

fn refusal(error: tokio_postgres::Error, what: &str, ddl: &str) -> Trouble {
    match Trouble::from(error) {
        Trouble::Table { reason, .. } => Trouble::Lane(format!(
            "{what} cannot be created: {reason}; have the owner of the schema run: {ddl}"
        )),
        other => other,
    }
}

/// Whether tables of all these names are there.
pub(super) async fn are_there(client: &Client, names: &[&TargetName]) -> Result<bool, Trouble> {
    let there = "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest($1) AS name";
    let names: Vec<String> = names.iter().map(|name| name.sql()).collect();
    let found = client.query_typed(there, &[(&names, Type::TEXT_ARRAY)]).await?;
    Ok(found.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
}
