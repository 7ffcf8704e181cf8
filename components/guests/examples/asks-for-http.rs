//! Sends an HTTP request and says how that went. Where it is configured, it makes large header fields too.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

struct AsksForHttp;

impl Guest for AsksForHttp {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        for _ in 0..2 {
            let request = OutgoingRequest::new(Fields::new());
            request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
            request.set_authority(Some("169.254.169.254")).expect("an authority");
            request.set_path_with_query(Some("/")).expect("a path");
            let answer = handle(request, None).and_then(|answer| {
                answer.subscribe().block();
                answer.get().expect("it is ready").expect("it is the first time").map(drop)
            });
            say(out, &format!("{answer:?}"));
        }
        if configured("large") == "yes" {
            drop(Fields::from_list(&[("x".to_owned(), vec![b'x'; 1 << 20])]));
        }
        Ok(())
    }
}

guests::export!(AsksForHttp);
