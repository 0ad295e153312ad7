//! Any bytes as what the guard and the operator say to each other, and as a signed note: nothing panics, what is read is bounded, is written and
//! read again as the same, and no note that somebody else wrote is believed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use remit::policy::channel::{LARGEST_REFUSAL, LARGEST_REPORT, MOST_SOURCES, Refusal, Report, public_key, spki};
use remit::policy::signed::{self, Signer};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::read(bytes) {
        assert!(bytes.len() <= LARGEST_REPORT && report.usage.len() <= MOST_SOURCES);
        let again = Report::read(&serde_json::to_vec(&report).unwrap()).expect("what we write, we read");
        assert_eq!(again, report);
    }
    if let Some(refusal) = Refusal::read(bytes) {
        assert!(refusal.reason.len() + refusal.message.len() <= LARGEST_REFUSAL);
    }
    if let Some(key) = public_key(bytes) {
        assert_eq!(spki(&key), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let signer = Signer::from_seed(&[7; 32]);
        assert!(signer.trust().open(text).is_err(), "nobody signed it");
        let note = signer.sign(text);
        let opened = signer.trust().open(&note).expect("it was signed");
        assert_eq!(opened.trim_end_matches('\n'), text.trim_end_matches('\n'));
        assert_eq!(signed::text(&note), Some(opened));
        let _ = text.parse::<signed::Trust>();
    }
});
