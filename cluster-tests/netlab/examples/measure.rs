//! Measures what the switch costs: `cargo run --release -p selvage-netlab --example measure`.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a command that prints figures"
)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use selvage_netlab::{Host, Impairment, Netlab};

/// How long bytes are pumped.
const PUMP: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let lab = Netlab::new(1)?;
    let [a, b, ..] = lab.hosts_named(["a", "b", "c", "d", "e"])?;
    println!("a lab of five hosts: {:?}", started.elapsed());
    for delay in [0, 1, 25, 50] {
        lab.set_everywhere(&Impairment::delay(Duration::from_millis(delay)));
        let (least, middle, most) = round_trips(&a, &b)?;
        let rate = pump(&a, &b)?;
        println!(
            "delay {delay:>2} ms each way: round trip {least:?} / {middle:?} / {most:?}, \
             TCP {rate:.0} Mbit/s"
        );
    }
    lab.set_everywhere(&Impairment::rate(20_000_000));
    println!("rate 20 Mbit/s: TCP {:.1} Mbit/s", pump(&a, &b)?);
    lab.set_everywhere(&Impairment::default());
    println!("to here: TCP {:.0} Mbit/s", pump(&a, &lab.here()?)?);
    Ok(())
}

/// The least, the middle and the most of a hundred round trips.
fn round_trips(a: &Host, b: &Host) -> Result<(Duration, Duration, Duration), Box<dyn Error>> {
    let asks = a.inside(|| UdpSocket::bind((a.addr(), 0)))??;
    let answers = b.inside(|| UdpSocket::bind((b.addr(), 0)))??;
    asks.connect(answers.local_addr()?)?;
    let mut took = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        asks.send(b"ping")?;
        let (_, from) = answers.recv_from(&mut [0; 8])?;
        answers.send_to(b"pong", from)?;
        asks.recv(&mut [0; 8])?;
        took.push(started.elapsed());
    }
    took.sort();
    Ok((took[0], took[50], took[99]))
}

/// Megabits per second from one host to another.
fn pump(a: &Host, b: &Host) -> Result<f64, Box<dyn Error>> {
    let listener = b.inside(|| TcpListener::bind((b.addr(), 0)))??;
    let to = listener.local_addr()?;
    let mut sender = a.inside(|| TcpStream::connect(to))??;
    let (mut receiver, _) = listener.accept()?;
    let pump = std::thread::spawn(move || while sender.write_all(&[0; 65_536]).is_ok() {});
    let mut buffer = vec![0; 65_536];
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < PUMP {
        bytes += receiver.read(&mut buffer)?;
    }
    let rate = bytes as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e6;
    drop(receiver);
    pump.join().map_err(|_| "the sender panicked")?;
    Ok(rate)
}
