//! What a client must bring to be let in.

use amf::Value;
use node::config::Secret;
use session::{Connect, Refusal};

/// Whether a client that connects brings this key: as a text among the arguments behind the
/// command object, as a part of the path of its URL, or as `developerKey` in a query.
pub(super) fn brings(connect: &Connect, key: &Secret) -> bool {
    let url = connect.tc_url.as_str();
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (_, path) = address.split_once("://").unwrap_or(("", address));
    // What stands before the first slash is a host.
    let segments = path.split('/').skip(1);
    let arguments = connect.args.iter().filter_map(Value::as_str);
    let pairs = query.split('&').chain(connect.query.split('&'));
    let values = pairs.filter_map(|pair| pair.strip_prefix("developerKey="));
    // All of them, so that the time tells nothing.
    arguments
        .chain(segments)
        .chain(values)
        .fold(false, |found, text| key.is(text.as_bytes()) | found)
}

/// What one that does not is told.
pub(super) fn refusal() -> Refusal {
    Refusal::Rejected {
        description: "A developer key of this server is needed.".to_owned(),
        application: Value::Undefined,
    }
}

#[cfg(test)]
mod tests {
    use model::{AppInstance, AppName, InstanceName, VhostName};
    use session::event::{Capabilities, ObjectEncoding};

    use super::*;

    fn connect(tc_url: &str, args: Vec<Value>) -> Connect {
        Connect {
            at: AppInstance {
                vhost: VhostName::default_vhost(),
                app: AppName::new("live").unwrap(),
                instance: InstanceName::default_instance(),
            },
            host: String::new(),
            query: String::new(),
            tc_url: tc_url.to_owned(),
            page_url: String::new(),
            swf_url: String::new(),
            flash_ver: String::new(),
            encoding: ObjectEncoding::Amf0,
            capabilities: Capabilities::default(),
            session: None,
            object: Value::Null,
            args,
        }
    }

    #[test]
    fn a_key_is_found_wherever_clients_put_it() {
        for (url, args) in [
            ("rtmfp://host/live", vec![Value::from("k3y")]),
            ("rtmfp://host/live", vec![Value::Null, Value::from("k3y")]),
            ("rtmfp://host/k3y", vec![]),
            ("rtmfp://host/k3y/room", vec![]),
            ("rtmfp://host/live/k3y/?a=b", vec![]),
            ("rtmfp://host/live?a=b&developerKey=k3y", vec![]),
        ] {
            assert!(brings(&connect(url, args), &Secret::new("k3y")), "{url}");
        }
    }

    #[test]
    fn what_is_nearly_a_key_is_none() {
        for (url, args) in [
            ("rtmfp://k3y/live", vec![Value::from("k3Y")]),
            ("rtmfp://host/k3", vec![Value::from("")]),
            ("rtmfp://host/k3y0", vec![Value::Number(1.0)]),
            ("rtmfp://host/live?developer=k3y", vec![]),
            ("", vec![]),
        ] {
            assert!(!brings(&connect(url, args), &Secret::new("k3y")), "{url}");
        }
    }
}
