//! Headers on their way from the client to the decoder, which knows neither the client nor how it keeps them.

use crate::debezium::RecordHeaders;
use crate::kafka::Headers;

impl RecordHeaders for Headers<'_> {
    fn each<'h>(&'h self, see: &mut dyn FnMut(&'h [u8], Option<&'h [u8]>)) {
        self.encoded_names().for_each(|(name, value)| see(name, value));
    }
}
