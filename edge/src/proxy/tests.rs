use super::*;

#[tokio::test]
async fn what_follows_the_header_is_left_alone() {
    let long = "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"
        .as_bytes()
        .to_vec();
    let binary = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[9; 12]].concat();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), long, binary] {
        let all = [&header[..], b"\x03rest\r\n"].concat();
        let mut socket = &all[..];
        read(&mut socket).await.unwrap();
        assert_eq!(socket, b"\x03rest\r\n");
        let mut cut = &header[..header.len() - 1];
        assert!(matches!(read(&mut cut).await, Err(Error::Lost(_))));
    }
}
