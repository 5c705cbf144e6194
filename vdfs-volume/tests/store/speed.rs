//! Figures, printed and not judged; and one that is: how soon a full store is open.

use std::time::{Duration, Instant};

use crate::fixture::{Client, MIB, Place, chunk, pattern, read};

#[test]
fn store_of_100_000_chunks_is_open_within_5_seconds() {
    let mut place = Place::new();
    place.budget_bytes = 1024 * MIB;
    let store = place.open();
    let mut client = Client::new(1);
    let begun = Instant::now();
    for data in 0..100_000 {
        client
            .write(&store, chunk(data, 0), 0, b"small")
            .expect("written");
    }
    eprintln!("100,000 small writes: {:?}", begun.elapsed());
    drop(store);
    let begun = Instant::now();
    let store = place.open();
    let took = begun.elapsed();
    eprintln!("opened in {took:?}");
    assert_eq!(store.usage().chunks, 100_000);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn store_throughput_is_printed() {
    let mut place = Place::new();
    place.budget_bytes = 512 * MIB;
    let store = place.open();
    let mut client = Client::new(1);
    let payload = pattern(1, 1 << 20);
    for label in ["first touch", "rewrite"] {
        let begun = Instant::now();
        for write in 0..256u32 {
            let (index, offset) = (write / 64, (write % 64) << 20);
            client
                .write(&store, chunk(1, index), offset, &payload)
                .expect("written");
        }
        print_rate(label, "writes of 1 MiB", 256, begun.elapsed());
    }
    let begun = Instant::now();
    for step in 0..256u32 {
        let (index, offset) = (step / 64, (step % 64) << 20);
        read(&store, chunk(1, index), offset, 1 << 20).expect("reads");
    }
    print_rate("warm", "reads of 1 MiB", 256, begun.elapsed());
    let begun = Instant::now();
    for write in 0..20_000u32 {
        let offset = write.wrapping_mul(2_654_435_761) % (64 << 20) / 4096 * 4096;
        client
            .write(&store, chunk(1, 0), offset, &payload[..4096])
            .expect("written");
    }
    eprintln!("writes of 4 KiB: {:?} each", begun.elapsed() / 20_000);
}

fn print_rate(label: &str, what: &str, mib: u32, took: Duration) {
    eprintln!(
        "{label} {what}: {:.0} MiB/s",
        f64::from(mib) / took.as_secs_f64()
    );
}
