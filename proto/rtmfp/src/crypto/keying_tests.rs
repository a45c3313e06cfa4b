use super::*;
use crate::crypto::Suite;
use crate::crypto::identity::Discriminator;

fn hex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn entropy(mut seed: u8) -> impl FnMut(&mut [u8]) {
    move |out: &mut [u8]| {
        for byte in out {
            seed = seed.wrapping_mul(181).wrapping_add(97);
            *byte = seed;
        }
    }
}

/// The facts of one captured handshake, by name, and its packets.
struct Captured<'a> {
    facts: Vec<(&'a str, Vec<u8>)>,
    packets: Vec<[&'a str; 4]>,
}

impl Captured<'_> {
    fn fact(&self, name: &str) -> &[u8] {
        &self.facts.iter().find(|(key, _)| *key == name).unwrap().1
    }
}

fn captured() -> Vec<Captured<'static>> {
    let text = include_str!("../../tests/vectors/handshakes.txt");
    let mut all: Vec<Captured<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            [""] => {}
            ["handshake", _] => all.push(Captured {
                facts: Vec::new(),
                packets: Vec::new(),
            }),
            ["packet", a, b, c, d] => all.last_mut().unwrap().packets.push([a, b, c, d]),
            [key, value] => all.last_mut().unwrap().facts.push((key, hex(value))),
            _ => panic!("{line}"),
        }
    }
    assert_eq!(all.len(), 4);
    all
}

fn keys_of(captured: &Captured<'_>, initiator: bool) -> SessionKeys {
    let (i, r) = (
        captured.fact("initiator_skic"),
        captured.fact("responder_skrc"),
    );
    let (near, far) = if initiator { (i, r) } else { (r, i) };
    let [near_said, far_said] = [near, far].map(|bytes| Component::parse(bytes).unwrap());
    let (send, receive) = verification(&near_said, &far_said, &Policy::MIRROR).unwrap();
    SessionKeys::derive(captured.fact("dh_secret"), [near, far], send, receive)
}

#[test]
fn captured_handshakes_give_their_keys() {
    for captured in captured() {
        let (i, r) = (keys_of(&captured, true), keys_of(&captured, false));
        for (keys, side) in [(&i, "initiator"), (&r, "responder")] {
            let fact = |name: &str| captured.fact(&format!("{side}_{name}"));
            assert_eq!(keys.encrypt, fact("encrypt_key"));
            assert_eq!(keys.hmac_send, fact("hmac_key"));
            assert_eq!(keys.near_nonce, fact("near_nonce"));
        }
        assert_eq!(i.decrypt, r.encrypt);
        assert_eq!(i.hmac_receive, r.hmac_send);
        assert_eq!(i.far_nonce, r.near_nonce);
        assert_eq!((i.send, i.receive), (r.receive, r.send));
    }
}

#[test]
fn captured_packets_are_opened_and_sealed_to_the_same_bytes() {
    let mut count = 0;
    for captured in captured() {
        let mut suites = [
            ("initiator", keys_of(&captured, true).suite()),
            ("responder", keys_of(&captured, false).suite()),
        ];
        let mut startup = FlashSuite::startup();
        for [from, key, inside, wire] in &captured.packets {
            let (inside, wire) = (hex(inside), hex(wire));
            let (near, far) = match suites.each_mut() {
                [(name, near), (_, far)] if name == from => (near, far),
                [(_, far), (_, near)] => (near, far),
            };
            let near = match *key {
                "default" => &mut startup,
                _ => near,
            };
            let head = near.head_len();
            let mut again = wire.clone();
            again[..inside.len()].copy_from_slice(&inside);
            assert_eq!(near.seal(&mut again, inside.len() - head), Ok(wire.len()));
            assert_eq!(again, wire);
            let opened = match *key {
                "default" => FlashSuite::startup().open(&mut again).unwrap().to_vec(),
                _ => far.open(&mut again).unwrap().to_vec(),
            };
            assert_eq!(opened, &inside[head..]);
            count += 1;
        }
    }
    assert_eq!(count, 4 * 17);
}

fn identity(is_static: bool, groups: &[Group], seed: u8) -> Identity {
    let mut entropy = entropy(seed);
    if is_static {
        let pairs = groups
            .iter()
            .map(|group| KeyPair::generate(*group, &mut entropy).unwrap());
        Identity::with_static_keys(pairs.collect(), false, None).unwrap()
    } else {
        Identity::ephemeral(groups, true, None, &mut entropy).unwrap()
    }
}

#[track_caller]
fn agree(
    [a, b]: [&Identity; 2],
    [ours, theirs]: [Policy; 2],
) -> Result<(SessionKeys, SessionKeys), Error> {
    let begun = Initiation::new(a, &b.certificate(), Group::Modp2048, ours, &mut entropy(50))?;
    let (component, far) = respond(
        b,
        &a.certificate(),
        begun.component(),
        &theirs,
        &mut entropy(90),
    )?;
    let near = begun.finish(&b.certificate(), &component)?;
    assert_eq!(near.encrypt, far.decrypt);
    assert_eq!(near.decrypt, far.encrypt);
    assert_eq!((near.send, near.receive), (far.receive, far.send));
    Ok((near, far))
}

#[test]
fn static_and_ephemeral_keys_agree_in_every_combination() {
    for group in [Group::Modp1024, Group::Modp1536, Group::Modp2048] {
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            let sides = [&identity(a, &[group], 1), &identity(b, &[group], 2)];
            let (near, far) = agree(sides, [Policy::ALWAYS, Policy::MIRROR]).unwrap();
            assert_eq!(near.send, near.receive);
            assert_eq!(near.send.hmac_len, Some(16));
            let mut packet = [7; 64];
            let len = near.suite().seal(&mut packet, 20).unwrap();
            assert_eq!(
                far.suite().open(&mut packet[..len]).unwrap()[..20],
                [7; 21][1..]
            );
        }
    }
}

#[test]
fn the_strongest_common_group_is_chosen() {
    let all = identity(false, &Group::ALL, 1);
    let two = identity(false, &[Group::Modp1024, Group::Modp2048], 2);
    let chosen = |near: &Identity, far: &Identity, strongest| {
        let far = far.certificate();
        let begun = Initiation::new(near, &far, strongest, Policy::MIRROR, &mut entropy(3));
        begun.map(|begun| begun.pair.group())
    };
    assert_eq!(chosen(&all, &two, Group::Modp4096), Ok(Group::Modp2048));
    assert_eq!(chosen(&all, &two, Group::Modp1536), Ok(Group::Modp1024));
    assert_eq!(chosen(&all, &all, Group::Modp4096), Ok(Group::Modp4096));
    let other = identity(false, &[Group::Modp1536], 2);
    assert_eq!(
        chosen(&two, &other, Group::Modp4096),
        Err(Error::NoCommonGroup)
    );
}

/// What known clients read by position.
#[test]
fn one_who_demands_nothing_gets_the_component_that_known_clients_read() {
    let server = identity(false, &[Group::Modp1024], 2);
    let client = identity(true, &[Group::Modp1024], 1);
    let mut said = vec![0x02, 0x1d, 0x02, 0x41, 0x0e];
    said.extend([9; 64]);
    said.extend([0x03, 0x1a, 0x02, 0x0a, 0x02, 0x1e, 0x02]);
    let far = client.certificate();
    let (component, keys) =
        respond(&server, &far, &said, &Policy::MIRROR, &mut entropy(5)).unwrap();
    assert_eq!(component[..11], hex("031a0000021e0081020d02"));
    assert_eq!(component.len(), 11 + 128);
    assert_eq!(keys.send, Verification::CHECKSUM);
    assert_eq!(keys.receive, Verification::CHECKSUM);
}

#[test]
fn wishes_are_mirrored_and_requirements_kept() {
    let sides = [
        &identity(false, &[Group::Modp1024], 1),
        &identity(false, &[Group::Modp1024], 2),
    ];
    let with = |hmac, sequence| Policy {
        hmac,
        hmac_len: 12,
        sequence,
    };
    let result = |a, b| agree(sides, [a, b]).map(|(keys, _)| (keys.send, keys.receive));
    let of = |hmac_len, sequence| Verification { hmac_len, sequence };
    use Wish::{Always, Mirror, Never, Required};
    let none = Verification::CHECKSUM;
    assert_eq!(
        result(with(Never, Never), with(Mirror, Mirror)),
        Ok((none, none))
    );
    assert_eq!(
        result(with(Mirror, Mirror), with(Mirror, Mirror)),
        Ok((none, none))
    );
    let on = of(Some(12), true);
    assert_eq!(
        result(with(Always, Always), with(Mirror, Mirror)),
        Ok((on, on))
    );
    assert_eq!(
        result(with(Mirror, Mirror), with(Required, Required)),
        Ok((on, on))
    );
    let numbered = of(None, true);
    assert_eq!(
        result(with(Never, Always), with(Mirror, Mirror)),
        Ok((numbered, numbered))
    );
    assert!(matches!(
        result(with(Never, Always), with(Required, Mirror)),
        Err(Error::Required { .. })
    ));
    assert!(matches!(
        result(with(Always, Required), with(Always, Never)),
        Err(Error::Required { .. })
    ));
}

#[test]
fn weak_public_keys_make_no_session() {
    let server = identity(false, &[Group::Modp1024], 2);
    let client = identity(false, &[Group::Modp1024], 1);
    let mut one_bit = [0; 128];
    one_bit[3] = 1;
    for weak in [&[0; 128], &[0xff; 128], &one_bit] {
        let mut said = vec![0x81, 0x02, 0x0d, 0x02];
        said.extend(weak);
        let result = respond(
            &server,
            &client.certificate(),
            &said,
            &Policy::MIRROR,
            &mut entropy(1),
        );
        assert_eq!(result.unwrap_err(), Error::WeakPublicKey);
        let begun = Initiation::new(
            &client,
            &server.certificate(),
            Group::Modp1024,
            Policy::MIRROR,
            &mut entropy(1),
        );
        let result = begun.unwrap().finish(&server.certificate(), &said);
        assert_eq!(result.unwrap_err(), Error::WeakPublicKey);
    }
}

#[test]
fn broken_components_are_refused() {
    let server = identity(false, &[Group::Modp1024], 2);
    let client = identity(true, &[Group::Modp1024], 1);
    let far = client.certificate();
    let respond =
        |said: &[u8]| respond(&server, &far, said, &Policy::MIRROR, &mut entropy(1)).unwrap_err();
    let malformed = Error::Malformed {
        what: "session keying component",
    };
    assert_eq!(respond(&[]), Error::NoCommonGroup);
    assert_eq!(
        respond(&[2, 0x1d, 5]),
        Error::NoCommonGroup,
        "we do not have it"
    );
    assert_eq!(
        respond(&[2, 0x1d, 9]),
        Error::NoCommonGroup,
        "nobody has it"
    );
    for broken in [
        &[2, 0x1d, 2, 2, 0x1d, 2][..],
        &[2, 0x1d, 2, 3, 0x1a, 4, 3],
        &[2, 0x1d, 2, 3, 0x1a, 4, 33],
        &[2, 0x1d, 2, 2, 0x1a, 4],
        &[2, 0x1d],
        &[0; limits::COMPONENT_MAX + 1],
    ] {
        assert_eq!(respond(broken), malformed);
    }
}

#[test]
fn a_component_cut_anywhere_makes_no_session_that_works() {
    let server = identity(false, &[Group::Modp1024], 2);
    let client = identity(true, &[Group::Modp1024], 1);
    let begun = Initiation::new(
        &client,
        &server.certificate(),
        Group::Modp1024,
        Policy::ALWAYS,
        &mut entropy(7),
    )
    .unwrap();
    let (whole, _) = respond(
        &server,
        &client.certificate(),
        begun.component(),
        &Policy::MIRROR,
        &mut entropy(8),
    )
    .unwrap();
    for len in 0..whole.len() {
        // The key is the last option: whatever is cut, it is not whole.
        let result = begun.finish(&server.certificate(), &whole[..len]);
        assert!(result.is_err(), "{len} bytes");
    }
    assert_eq!(Discriminator::canonical(server.fingerprint()).len(), 34);
}
