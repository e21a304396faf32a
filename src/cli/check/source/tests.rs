//! What is said about sources, from what was found in them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::change::TablePolicy;
use crate::cli::check::Level;

fn column(name: &str, type_name: &str) -> FoundColumn {
    FoundColumn {
        name: name.into(),
        type_name: type_name.into(),
        nullable: true,
        may_toast: matches!(type_name, "text" | "jsonb"),
        ..FoundColumn::default()
    }
}

fn table(name: &str, has_primary_key: bool, replica_identity: char) -> FoundTable {
    let second = if name.ends_with("text") { column("note", "text") } else { column("n", "int4") };
    FoundTable {
        schema: "public".into(),
        name: name.into(),
        has_primary_key,
        replica_identity,
        partition_of: None,
        columns: vec![FoundColumn { in_key: true, ..column("id", "text") }, second],
    }
}

fn topic(name: &str, partitions: usize, policy: &str) -> FoundTopic {
    FoundTopic { name: name.into(), partitions, cleanup_policy: Some(policy.into()) }
}

fn shown(found: &FoundSource, topics: &[FoundTopic], policies: &Policies) -> Vec<(Level, String)> {
    let topics = FoundTopics { cluster_id: None, topics: topics.to_vec() };
    let topics = (!topics.topics.is_empty()).then_some(&topics);
    judge(found, topics, policies).into_iter().map(|finding| (finding.level, finding.message)).collect()
}

fn with_defaults(defaults: TablePolicy) -> Policies {
    Policies { defaults, ..Policies::default() }
}

#[test]
fn hazards_of_the_source_are_found_in_tables_that_are_read() {
    let tables =
        [("a", true, 'd'), ("b", false, 'd'), ("c", false, 'f'), ("d", true, 'n'), ("e", false, 'i')];
    let tables = tables.map(|(name, key, identity)| table(name, key, identity));
    let mut found = FoundSource::of(tables.to_vec());
    found.wal_level = "replica".into();
    let messages = shown(&found, &[], &Policies::default());
    let expected = [
        (Level::Fail, "wal_level is replica, and Debezium needs logical"),
        (
            Level::Warn,
            "public.b has neither primary key nor replica identity: its updates and deletes fail once it is published",
        ),
        (
            Level::Note,
            "public.c has no primary key: a delete or an update takes one of the rows that are equal",
        ),
        (
            Level::Fail,
            "public.d has replica identity nothing: its updates and deletes fail once it is published",
        ),
    ];
    assert_eq!(messages, expected.map(|(level, text)| (level, text.to_owned())));
    found.wal_level = "logical".into();
    let messages = shown(&found, &[topic("cdc.public.a", 1, "delete")], &Policies::default());
    assert_eq!(messages, [(Level::Ok, "wal_level logical, 1 tables with a key".to_owned())]);
}

#[test]
fn what_is_declared_for_tables_without_key_decides_what_is_said() {
    let found = FoundSource::of(vec![table("c", false, 'f')]);
    for (keyless, said) in [(Keyless::Append, "only ever get more rows"), (Keyless::Stop, "its copies stop")]
    {
        let messages = shown(&found, &[], &with_defaults(TablePolicy { keyless, ..TablePolicy::default() }));
        assert_eq!((messages.len(), messages[0].0), (1, Level::Warn), "{messages:?}");
        assert!(messages[0].1.contains(said), "{messages:?}");
    }
}

#[test]
fn tables_are_found_under_the_names_that_topics_give_them() {
    let found = FoundSource::of(vec![table("Odd Ä", false, 'f')]);
    let messages = shown(&found, &[topic("cdc.public.Odd__", 1, "delete")], &Policies::default());
    assert!(messages[0].1.starts_with("public.\"Odd Ä\" has no primary key"), "{messages:?}");
}

#[test]
fn tables_whose_updates_leave_values_out_are_named_up_to_a_limit() {
    let names: Vec<String> = (0..12).map(|n| format!("t{n}_text")).collect();
    let mut tables: Vec<_> = names.iter().map(|name| table(name, true, 'd')).collect();
    tables.push(table("full_text", true, 'f'));
    let messages = shown(&FoundSource::of(tables), &[], &Policies::default());
    assert_eq!(messages.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Ok, Level::Note]);
    assert!(messages[1].1.ends_with("public.t8_text, public.t9_text and 2 more"), "{messages:?}");
}

#[test]
fn a_topic_and_its_table_are_judged_together() {
    let found =
        FoundSource::of(vec![table("a_text", true, 'd'), table("b", false, 'f'), table("c", true, 'd')]);
    let topics = [
        topic("cdc.public.a_text", 1, "compact"),
        topic("cdc.public.b", 3, "delete"),
        topic("cdc.public.c", 3, "compact,delete"),
    ];
    let messages = shown(&found, &topics, &Policies::default());
    let has = |level: Level, words: &[&str]| {
        let found =
            messages.iter().any(|(of, text)| *of == level && words.iter().all(|word| text.contains(word)));
        assert!(found, "no {level:?} with {words:?} in {messages:#?}");
    };
    has(Level::Warn, &["compaction removes", "public.a_text"]);
    has(Level::Warn, &["without primary key on several partitions", ": public.b"]);
    has(Level::Note, &["a truncate has no order", ": public.b, public.c"]);
    let ignored = with_defaults(TablePolicy { on_truncate: OnTruncate::Ignore, ..TablePolicy::default() });
    assert!(!shown(&found, &topics, &ignored).iter().any(|(_, text)| text.contains("truncate")));
}

#[test]
fn columns_that_only_snapshots_hold_are_named() {
    let mut generated = table("a", true, 'd');
    generated.columns[1].generated = true;
    let messages = shown(&FoundSource::of(vec![generated]), &[], &Policies::default());
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].1.contains("public.a has generated columns") && messages[0].1.ends_with(": n"),
        "{messages:?}"
    );
}

#[test]
fn a_partitioned_table_that_is_sent_beside_its_partitions_is_said() {
    let mut partition = table("parcels_n", true, 'd');
    partition.partition_of = Some(("public".into(), "parcels".into()));
    let mut other = table("crates_n", true, 'd');
    other.partition_of = Some(("public".into(), "crates".into()));
    let found = FoundSource::of(vec![table("parcels", true, 'd'), partition, other]);
    let topics = |names: &[&str]| -> Vec<FoundTopic> {
        names.iter().map(|name| topic(&format!("cdc.public.{name}"), 1, "delete")).collect()
    };
    let said = |names: &[&str]| {
        let mut all = shown(&found, &topics(names), &Policies::default());
        all.retain(|(_, message)| message.contains("partitions have topics"));
        all
    };
    let both = said(&["parcels", "parcels_n", "crates_n"]);
    assert!(
        matches!(&both[..], [(Level::Warn, message)] if message.ends_with(": public.parcels_n")),
        "{both:?}"
    );
    assert_eq!(said(&["parcels", "crates_n"]), []);
    assert_eq!(said(&["parcels_n", "crates_n"]), []);
}

#[test]
fn partitions_whose_changes_come_under_another_name_are_said() {
    let mut partition = table("parcels_n", true, 'd');
    partition.partition_of = Some(("public".into(), "parcels".into()));
    let mut found = FoundSource::of(vec![table("parcels", true, 'd'), partition]);
    let said = |found: &FoundSource, name: &str| {
        let mut all =
            shown(found, &[topic(&format!("cdc.public.{name}"), 1, "delete")], &Policies::default());
        all.retain(|(_, message)| message.contains("publish_via_partition_root"));
        all
    };
    assert_eq!(said(&found, "parcels_n"), []);
    let messages = said(&found, "parcels");
    let of = |message: &String| message.ends_with("rows of snapshots alone: public.parcels");
    assert!(matches!(&messages[..], [(Level::Warn, message)] if of(message)), "{messages:?}");
    found.published_as_roots = vec![("public".into(), "parcels".into())];
    let messages = said(&found, "parcels_n");
    let of = |message: &String| message.ends_with(": public.parcels_n");
    assert!(matches!(&messages[..], [(Level::Warn, message)] if of(message)), "{messages:?}");
    assert_eq!(said(&found, "parcels"), [], "that is where its changes are");
}

#[test]
fn that_nothing_was_looked_at_is_not_that_all_is_well() {
    let routed = [topic("everything", 1, "delete")];
    let messages = shown(&FoundSource::of(vec![table("a", true, 'd')]), &routed, &Policies::default());
    let said = |message: &String| message.starts_with("none of its 1 tables has a topic");
    assert!(matches!(&messages[..], [(Level::Warn, message)] if said(message)), "{messages:?}");
    let messages = shown(&FoundSource::of(Vec::new()), &routed, &Policies::default());
    assert_eq!(messages, [(Level::Warn, "this database has no tables".to_owned())]);
}
