//! Behaviour of the decoder on recorded and generated events.
