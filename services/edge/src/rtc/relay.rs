//! STUN and TURN servers that readers are told of, with credentials that expire: what coturn and others call `use-auth-secret`
//! (draft-uberti-behave-turn-rest): the name is the time of its end, the password its HMAC-SHA-1 under a shared secret.

use base64::Engine as _;
use ticker_rtc::crypto;

/// Bytes that tell credentials of one second apart.
const NAME_CHARS: usize = 12;

/// See the module.
#[derive(Debug)]
pub(super) struct IceServers {
    urls: Vec<String>,
    secret: Option<String>,
    seconds: u32,
}

impl IceServers {
    /// `Err`: what is no URL of such a server.
    pub(super) fn new(urls: &[String], secret: Option<&str>, seconds: u32) -> Result<Self, String> {
        let plain = |url: &&String| {
            let scheme = url.split_once(':').map(|(scheme, _)| scheme);
            !matches!(scheme, Some("stun" | "stuns" | "turn" | "turns"))
                || !url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\'))
        };
        match urls.iter().find(plain) {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(Self { urls: urls.to_vec(), secret: secret.map(str::to_owned), seconds }),
        }
    }

    /// The values of the `Link` headers of an answer (draft-ietf-wish-whep §4.5, RFC 9725 §4.6), at that second of the Unix
    /// epoch.
    pub(super) fn links(&self, now_seconds: u64) -> Vec<String> {
        let credentials = self.secret.as_ref().and_then(|secret| {
            let name = format!("{}:{}", now_seconds + u64::from(self.seconds), token()?);
            let password = crypto::hmac_sha1(secret.as_bytes(), name.as_bytes());
            Some((name, base64::engine::general_purpose::STANDARD.encode(password)))
        });
        let link = |url: &String| match &credentials {
            Some((name, password)) if url.starts_with("turn") => format!(
                "<{url}>; rel=\"ice-server\"; username=\"{name}\"; credential=\"{password}\"; credential-type=\"password\""
            ),
            _ => format!("<{url}>; rel=\"ice-server\""),
        };
        self.urls.iter().map(link).collect()
    }
}

fn token() -> Option<String> {
    ticker_rtc::agent::name::<NAME_CHARS>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_that_a_relay_expects() {
        let urls = ["stun:stun.example.org".to_owned(), "turn:turn.example.org:3478?transport=udp".to_owned()];
        let servers = IceServers::new(&urls, Some("north"), 600).expect("URLs");
        let links = servers.links(1_000);
        assert_eq!(links[0], "<stun:stun.example.org>; rel=\"ice-server\"");
        let quoted = |name: &str| links[1].split(&format!("{name}=\"")).nth(1)?.split('"').next();
        let (username, credential) = (quoted("username").expect("a name"), quoted("credential").expect("a password"));
        assert!(links[1].starts_with("<turn:turn.example.org:3478?transport=udp>; rel=\"ice-server\"; "), "{links:?}");
        assert!(username.starts_with("1600:"), "{username}");
        let expected = crypto::hmac_sha1(b"north", username.as_bytes());
        assert_eq!(credential, base64::engine::general_purpose::STANDARD.encode(expected));
        assert_ne!(servers.links(1_000), links, "two readers have two names");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for wrong in ["https://x", "turn.example.org", "turn:a>b", "turn:a b"] {
            assert!(IceServers::new(&[wrong.to_owned()], None, 1).is_err(), "{wrong}");
        }
    }
}
