//! The two calls of librdkafka that its Rust wrapper lacks: topic ids, and the watermarks that the client has cached.
//!
//! Everything unsafe of the Kafka side is here. The topic id is what tells a topic from another one of the same name:
//! librdkafka itself goes on at its old position in the new log, and skips what lies before it.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka_sys as sys;

use super::context::Context;

/// Id of a topic that the broker gives where it has none (the zero UUID).
const ZERO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// What a topic without id is called in a stored position.
const NO_ID: &str = "-";

/// A request for topic ids that is under way.
pub(super) struct TopicIds {
    queue: NonNull<sys::rd_kafka_queue_t>,
    // Below the queue in the drop order by hand: `Drop` destroys the queue first, and it must not outlive its client.
    _consumer: Arc<BaseConsumer<Context>>,
}

impl TopicIds {
    /// Asks for the ids of `topics`; the client gives up after `timeout`.
    pub(super) fn request<'t>(
        consumer: &Arc<BaseConsumer<Context>>,
        topics: impl Iterator<Item = &'t str>,
        timeout: Duration,
    ) -> Option<Self> {
        let names: Vec<CString> = topics.filter_map(|topic| CString::new(topic).ok()).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let client = consumer.client().native_ptr();
        // SAFETY: `client` lives as long as `consumer`, of which the result keeps a reference. The names outlive the
        // collection's construction, which copies them. Collection and options are copied by `DescribeTopics` and
        // destroyed once; the queue is destroyed once, in `Drop`.
        unsafe {
            let queue = NonNull::new(sys::rd_kafka_queue_new(client))?;
            let request = Self { queue, _consumer: Arc::clone(consumer) };
            let collection =
                sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = sys::rd_kafka_AdminOptions_new(
                client,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
            sys::rd_kafka_DescribeTopics(client, collection, options, queue.as_ptr());
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(collection);
            Some(request)
        }
    }

    /// The answer, if it comes within `wait`: ids in URL-safe base64 by topic, without the topics that do not exist.
    pub(super) fn answer(&self, wait: Duration) -> Option<Result<HashMap<String, String>, String>> {
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive until `Drop`. The event is destroyed once, after everything borrowed from it was
        // copied; the array of descriptions and the strings belong to the event.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue.as_ptr(), wait_ms);
            if event.is_null() {
                return None;
            }
            let answer = described_topics(event);
            sys::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl Drop for TopicIds {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new`, not destroyed elsewhere; a late answer keeps its own reference.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// # Safety
/// `event` is a live event of an admin request's queue.
unsafe fn described_topics(event: *mut sys::rd_kafka_event_t) -> Result<HashMap<String, String>, String> {
    // SAFETY: each accessor takes the live event or a pointer into it, checked for null where the library may give
    // null; `topics` has `count` elements.
    unsafe {
        if sys::rd_kafka_event_error(event) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("the answer is not a description of topics".to_owned());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut ids = HashMap::with_capacity(count);
        for index in 0..count {
            let topic = *topics.add(index);
            let name = text(sys::rd_kafka_TopicDescription_name(topic));
            let error = sys::rd_kafka_TopicDescription_error(topic);
            match if error.is_null() {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            } else {
                sys::rd_kafka_error_code(error)
            } {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    let id =
                        if id.is_null() { String::new() } else { text(sys::rd_kafka_Uuid_base64str(id)) };
                    ids.insert(name, url_safe(&id));
                }
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => {}
                _ => return Err(format!("{name}: {}", text(sys::rd_kafka_error_string(error)))),
            }
        }
        Ok(ids)
    }
}

/// First and end offset of a partition's log as the last fetch reported them, without a request; `None` before it.
pub(super) fn cached_watermarks(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client and the name live during the call; `low` and `high` are written during it only.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}

/// # Safety
/// `pointer` is null or a C string that lives during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a C string by this function's contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// The client writes ids in the standard alphabet, Kafka's own tools in the URL-safe one.
fn url_safe(id: &str) -> String {
    match id.trim_end_matches('=') {
        "" | ZERO_ID => NO_ID.to_owned(),
        id => id.replace('+', "-").replace('/', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_tools_write_them() {
        assert_eq!(url_safe("ab+/efghijklmnopqrstuv=="), "ab-_efghijklmnopqrstuv");
        assert_eq!(url_safe(ZERO_ID), NO_ID);
        assert_eq!(url_safe(""), NO_ID);
    }
}
