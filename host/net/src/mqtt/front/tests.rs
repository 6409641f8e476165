use tokio::net::TcpSocket;

use super::*;

/// Bytes that the task of a gateway's connection may take up while it waits: there are ten thousand of them. What it
/// needs besides (handshakes, the router, what is written) it takes when it needs it.
const WAITING: usize = 3 * 1024;
/// CONNECT of an MQTT 3.1.1 client that calls itself `gw`, with a clean session.
const CONNECT: &[u8] = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02gw";

#[tokio::test]
async fn a_connection_that_waits_takes_up_little_room() {
    let front = Front::new(FrontConfig::default(), Doors::default(), Arc::new(|_, _| {}));
    let shared = &front.shared;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap().connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (mut client, (stream, address)) = (client.unwrap(), accepted.unwrap());
    client.write_all(CONNECT).await.unwrap();
    let guest = shared.strangers.enter(address.ip()).unwrap();
    let (until, over) = (Instant::now() + Duration::from_secs(10), shared.over.subscribe());
    let stranger = Stranger { address, _guest: guest, until, over };
    let door = Door { carrier: Carrier::Mqtt, tls: None };
    let running = open(stream, &door, stranger, shared).await.map_err(|refused| refused.reason).unwrap();
    let size = size_of_val(&*running);
    assert!(size <= WAITING, "{size} bytes");
}
