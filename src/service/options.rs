//! From the settings to the options of each part.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Mode;
use crate::config::{Mirror as MirrorSettings, OnDataLoss as OnDataLossSetting, Settings};
use crate::debezium::DecoderOptions;
use crate::kafka::{ConsumerOptions, OnDataLoss};
use crate::lake::LakeOptions;
use crate::lane::{BatchLimits, LaneOptions};
use crate::mirror::MirrorOptions;
