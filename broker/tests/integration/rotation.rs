//! Secrets and public keys are replaced while clients log in all the time, with tokens of the old and of the new key: none of
//! them is refused, and no open connection is closed. The steps are those of SECURITY.md.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::access::{Guarded, connected, now_s, post_as};
use crate::shutdown::signal;
use crate::ws::Ws;

pub(crate) const ALLOW: &str = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";
/// How long a step lasts at least, in logins.
const LOGINS_OF_A_STEP: u64 = 40;
/// How long to wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What signs tokens.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    fn hs256(secret: &str) -> Self {
        Self { header: Header::new(Algorithm::HS256), key: EncodingKey::from_secret(secret.as_bytes()).unwrap() }
    }

    /// One with a key pair of its own, and the public key as a JWK.
    pub(crate) fn es256(kid: &str) -> (Self, Value) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let point = pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        (Self { header, key }, json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y}))
    }

    /// A token that the broker has not seen.
    pub(crate) fn token(&self, number: u64) -> String {
        let claims = json!({"sub": format!("user-{number}"), "iat": now_s() - 1, "exp": now_s() + 600});
        jsonwebtoken::encode(&self.header, &claims, &self.key).unwrap()
    }
}

/// Clients that log in all the time, with a new token each, in turn by each of the signers that are in use.
pub(crate) struct Crowd {
    server: SocketAddr,
    signers: Arc<[Signer]>,
    /// A bit for each signer in use.
    in_use: Arc<AtomicU64>,
    logins: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<BTreeMap<usize, Ws>>>,
}

impl Crowd {
    pub(crate) fn start(server: SocketAddr, signers: Vec<Signer>) -> Self {
        let (in_use, logins) = (Arc::new(AtomicU64::new(1)), Arc::default());
        let mut crowd =
            Self { server, signers: signers.into(), in_use, logins, stop: Arc::default(), clients: Vec::new() };
        crowd.clients = (0..4).map(|_| tokio::spawn(crowd.client())).collect();
        crowd
    }

    /// One of them. Returns one open connection for each signer.
    fn client(&self) -> impl Future<Output = BTreeMap<usize, Ws>> + Send + use<> {
        let (server, signers) = (self.server, Arc::clone(&self.signers));
        let (in_use, logins, stop) = (Arc::clone(&self.in_use), Arc::clone(&self.logins), Arc::clone(&self.stop));
        async move {
            let mut open = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                for (at, signer) in signers.iter().enumerate() {
                    if in_use.load(Ordering::SeqCst) & 1 << at == 0 {
                        continue;
                    }
                    let number = logins.fetch_add(1, Ordering::Relaxed);
                    let client = connected(server, &signer.token(number)).await;
                    open.entry(at).or_insert(client);
                    let posted = post_as(server, "chat/7", Some(&signer.token(number))).await;
                    assert_eq!(posted.status, 200, "signer {at}: {posted:?}");
                }
            }
            open
        }
    }

    /// Lets them log in for a while.
    pub(crate) async fn go_on(&self) {
        let (from, begin) = (self.logins.load(Ordering::Relaxed), Instant::now());
        while self.logins.load(Ordering::Relaxed) < from + LOGINS_OF_A_STEP {
            let is_alive = self.clients.iter().all(|client| !client.is_finished()) && begin.elapsed() < PATIENCE;
            assert!(is_alive, "a client was refused, or nobody logs in");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the broker has the key of a signer, as whoever rotates does before using it; then all use it.
    async fn begin_to_use(&self, signer: usize) {
        self.until(signer, 200).await;
        self.use_at_once(signer);
    }

    /// All use a signer from now on, whether the broker has its key or not.
    pub(crate) fn use_at_once(&self, signer: usize) {
        self.in_use.fetch_or(1 << signer, Ordering::SeqCst);
    }

    /// A signer is no longer used, for so long that nobody is still under way with one of its tokens.
    async fn cease_to_use(&self, signer: usize) {
        self.in_use.fetch_and(!(1 << signer), Ordering::SeqCst);
        self.go_on().await;
    }

    /// Waits until tokens of a signer get this answer.
    async fn until(&self, signer: usize, status: u16) {
        let begin = Instant::now();
        let token = self.signers[signer].token(0);
        while post_as(self.server, "chat/7", Some(&token)).await.status != status {
            assert!(begin.elapsed() < PATIENCE, "signer {signer}: no {status}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The connections that are open, by signer.
    pub(crate) async fn end(self) -> Vec<(usize, Ws)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut open = Vec::new();
        for client in self.clients {
            open.extend(client.await.expect("no good token is refused"));
        }
        open
    }
}

/// Connections whose key is still trusted go on; the others were closed.
pub(crate) async fn only_these_go_on(open: Vec<(usize, Ws)>, trusted: &[usize]) {
    for (signer, mut client) in open {
        if trusted.contains(&signer) {
            let answer = client.command(json!({"type": "ping", "id": 1})).await;
            assert_eq!(answer["type"], "pong", "signer {signer}");
        } else {
            assert_eq!(client.close_code().await, 4403, "signer {signer}");
        }
    }
}

/// Replaces a file as a whole.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_secret_is_replaced_and_no_good_token_is_refused() {
    let secrets =
        ["0123456789abcdef0123456789abcdef", "the second one, 32 bytes or more", "the third one, of 32 bytes or so"];
    let guarded = Guarded::start("", ALLOW);
    let (server, folder) = (guarded.address(), guarded.folder.path());
    let (secret, previous) = (folder.join("hs"), folder.join("hs-previous"));
    let crowd = Crowd::start(server, secrets.map(Signer::hs256).into());
    crowd.go_on().await;
    let with_previous = format!("hs-previous-secret-file = {previous:?}");
    for next in [1, 2] {
        // The file of the one before has what signs now: once it has to be named, then it is replaced.
        replace(&previous, secrets[next - 1]);
        guarded.rewrite(&with_previous, ALLOW);
        crowd.go_on().await;
        replace(&secret, secrets[next]);
        signal(&guarded.broker, "HUP");
        crowd.begin_to_use(next).await;
        crowd.go_on().await;
        crowd.cease_to_use(next - 1).await;
    }
    guarded.rewrite("", ALLOW);
    crowd.until(1, 401).await;
    crowd.go_on().await;
    only_these_go_on(crowd.end().await, &[2]).await;
}

#[tokio::test]
async fn public_keys_are_replaced_and_no_good_token_is_refused() {
    let (signers, keys): (Vec<_>, Vec<_>) = ["first", "second"].map(Signer::es256).into_iter().unzip();
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("jwks.json"), folder.path().join("ringyard.toml"));
    let set = |keys: &[Value]| replace(&file, &json!({"keys": keys}).to_string());
    set(&keys[..1]);
    std::fs::write(&config, format!("[auth]\nkeys-file = {file:?}\nalgorithms = ['ES256']\n{ALLOW}")).unwrap();
    let broker = crate::broker::Broker::start(&["--config", config.to_str().unwrap()]);
    let crowd = Crowd::start(broker.address, signers);
    crowd.go_on().await;
    // No signal: the file is looked at every 5 seconds.
    set(&keys);
    crowd.begin_to_use(1).await;
    crowd.go_on().await;
    // A mistake changes nothing, for either of them.
    replace(&file, "{\"keys\": [");
    signal(&broker, "HUP");
    crowd.go_on().await;
    crowd.cease_to_use(0).await;
    set(&keys[1..]);
    signal(&broker, "HUP");
    crowd.until(0, 401).await;
    crowd.go_on().await;
    only_these_go_on(crowd.end().await, &[1]).await;
}
