//! Diffie-Hellman over the MODP groups of RFC 2409 and RFC 3526.
//!
//! All of these primes are safe, and 2 generates. Private exponents are short, at least
//! twice the strength of their group (RFC 7919 §5.2 says how short is enough): a full-size
//! one would cost four to twelve times as much and protect no better. Everything that
//! touches a private exponent runs in constant time.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U320, U1024, U1536, U2048, U4096, Uint};
use zeroize::{Zeroize, Zeroizing};

use super::powers::Powers;
use crate::error::Error;

/// Randomness, from outside: nothing in this crate draws any by itself.
pub trait Entropy {
    /// Fills `out` with bytes that nobody can guess.
    fn fill(&mut self, out: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Entropy for F {
    fn fill(&mut self, out: &mut [u8]) {
        self(out);
    }
}

/// A group for key agreement. Ordered by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// 1024 bits. What all known clients speak, and the only one some of them do.
    Modp1024,
    /// 1536 bits.
    Modp1536,
    /// 2048 bits.
    Modp2048,
    /// 4096 bits.
    Modp4096,
}

impl Group {
    /// All groups, the strongest first.
    pub const ALL: [Self; 4] = [
        Self::Modp4096,
        Self::Modp2048,
        Self::Modp1536,
        Self::Modp1024,
    ];

    /// The group of this number, if it is one we know.
    #[must_use]
    pub const fn from_id(id: u64) -> Option<Self> {
        match id {
            2 => Some(Self::Modp1024),
            5 => Some(Self::Modp1536),
            14 => Some(Self::Modp2048),
            16 => Some(Self::Modp4096),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Modp1024 => 2,
            Self::Modp1536 => 5,
            Self::Modp2048 => 14,
            Self::Modp4096 => 16,
        }
    }

    /// The length of its prime in bytes: that of a public key and of a shared secret.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 => 256,
            Self::Modp4096 => 512,
        }
    }

    /// The length of a private exponent in bits.
    const fn exponent_bits(self) -> u32 {
        match self {
            Self::Modp1024 | Self::Modp1536 | Self::Modp2048 => 256,
            Self::Modp4096 => 320,
        }
    }

    /// `base` to the power of `exponent`, in the full length of the prime. `base` has at
    /// most that length.
    fn power(self, base: &[u8], exponent: &U320) -> Zeroizing<Vec<u8>> {
        let bits = self.exponent_bits();
        match self {
            Self::Modp1024 => power(&MODP_1024, base, exponent, bits),
            Self::Modp1536 => power(&MODP_1536, base, exponent, bits),
            Self::Modp2048 => power(&MODP_2048, base, exponent, bits),
            Self::Modp4096 => power(&MODP_4096, base, exponent, bits),
        }
    }

    /// Two to the power of `exponent`: a public key. What clients choose most has its powers
    /// made beforehand.
    fn power_of_two(self, exponent: &U320) -> Vec<u8> {
        match self {
            Self::Modp1024 => to_bytes(&POWERS_1024.raise(&MODP_1024, exponent)),
            Self::Modp2048 => to_bytes(&POWERS_2048.raise(&MODP_2048, exponent)),
            Self::Modp1536 | Self::Modp4096 => self.power(&[2], exponent).to_vec(),
        }
    }

    /// The prime as bytes, most significant first.
    fn prime(self) -> Vec<u8> {
        fn bytes<const LIMBS: usize>(params: &FixedMontyParams<LIMBS>) -> Vec<u8> {
            to_bytes(params.modulus())
        }
        match self {
            Self::Modp1024 => bytes(&MODP_1024),
            Self::Modp1536 => bytes(&MODP_1536),
            Self::Modp2048 => bytes(&MODP_2048),
            Self::Modp4096 => bytes(&MODP_4096),
        }
    }

    /// Whether `key` may be used as a far end's public key (RFC 7425 §4.6.2): it is
    /// neither near 0 nor near the prime, and has at least 16 ones and 16 zeros.
    ///
    /// # Errors
    /// [`Error::WeakPublicKey`].
    pub fn check_public_key(self, key: &[u8]) -> Result<(), Error> {
        let key = without_leading_zeros(key);
        if key.len() > self.key_len() {
            return Err(Error::WeakPublicKey);
        }
        let ones: u32 = key.iter().map(|byte| byte.count_ones()).sum();
        let zeros: u32 = key.iter().map(|byte| byte.count_zeros()).sum();
        let leading = key.first().map_or(0, |byte| byte.leading_zeros());
        // 2^24 is the least number of four bytes. The prime ends with eight bytes of ones,
        // so that the prime less 2^24 differs from it in one byte.
        let mut most = self.prime();
        let at = self.key_len() - 4;
        most[at] = most[at].wrapping_sub(1);
        let mut full = vec![0; self.key_len()];
        full[self.key_len() - key.len()..].copy_from_slice(key);
        let good = key.len() >= 4 && full <= most && ones >= 16 && zeros - leading >= 16;
        good.then_some(()).ok_or(Error::WeakPublicKey)
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn to_bytes<const LIMBS: usize>(number: &Uint<LIMBS>) -> Vec<u8> {
    let words = number.as_words().iter().rev();
    words.flat_map(|word| word.to_be_bytes()).collect()
}

fn power<const LIMBS: usize>(
    params: &FixedMontyParams<LIMBS>,
    base: &[u8],
    exponent: &U320,
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    let base = Uint::from_be_slice_truncated(base, Uint::<LIMBS>::BITS);
    let mut form = FixedMontyForm::new(&base, params).pow_bounded_exp(exponent, bits);
    let mut number = form.retrieve();
    let bytes = Zeroizing::new(to_bytes(&number));
    number.zeroize();
    form.as_montgomery_mut().zeroize();
    bytes
}

/// A private exponent and its public key. The exponent is wiped when this is dropped.
#[derive(Clone)]
pub struct KeyPair {
    group: Group,
    exponent: Zeroizing<U320>,
    public: Vec<u8>,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// How many private keys are drawn before we give up. One in 256 has a public key that is
/// too short; so many in a row come from a source that is broken.
const DRAWS_MAX: u32 = 32;

impl KeyPair {
    /// Draws a key pair. Its public key has all the bytes of its group's length, the first
    /// of which is not zero: some clients cut them from the wire by their length.
    ///
    /// # Errors
    /// [`Error::Entropy`] when `entropy` gives nothing but unusable keys.
    pub fn generate(group: Group, entropy: &mut dyn Entropy) -> Result<Self, Error> {
        for _ in 0..DRAWS_MAX {
            let mut bytes = Zeroizing::new([0; U320::BYTES]);
            let unused = U320::BYTES - group.exponent_bits() as usize / 8;
            entropy.fill(&mut bytes[unused..]);
            let pair = Self::from_exponent(group, &bytes);
            if pair.public.first() != Some(&0) && group.check_public_key(&pair.public).is_ok() {
                return Ok(pair);
            }
        }
        Err(Error::Entropy)
    }

    fn from_exponent(group: Group, bytes: &[u8; U320::BYTES]) -> Self {
        let exponent = Zeroizing::new(U320::from_be_slice(bytes));
        let public = group.power_of_two(&exponent);
        Self {
            group,
            exponent,
            public,
        }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> Group {
        self.group
    }

    /// The public key, as long as the group's prime.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with the holder of `public`, without leading zero bytes.
    ///
    /// # Errors
    /// [`Error::WeakPublicKey`] when `public` must not be used.
    pub fn agree(&self, public: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.group.check_public_key(public)?;
        let secret = self
            .group
            .power(without_leading_zeros(public), &self.exponent);
        Ok(Zeroizing::new(without_leading_zeros(&secret).to_vec()))
    }
}

static MODP_1024: LazyLock<FixedMontyParams<{ U1024::LIMBS }>> = LazyLock::new(|| params(HEX_1024));
static MODP_1536: LazyLock<FixedMontyParams<{ U1536::LIMBS }>> = LazyLock::new(|| params(HEX_1536));
static MODP_2048: LazyLock<FixedMontyParams<{ U2048::LIMBS }>> = LazyLock::new(|| params(HEX_2048));
static MODP_4096: LazyLock<FixedMontyParams<{ U4096::LIMBS }>> = LazyLock::new(|| params(HEX_4096));

static POWERS_1024: LazyLock<Powers<{ U1024::LIMBS }>> =
    LazyLock::new(|| Powers::new(&MODP_1024, Group::Modp1024.exponent_bits()));
static POWERS_2048: LazyLock<Powers<{ U2048::LIMBS }>> =
    LazyLock::new(|| Powers::new(&MODP_2048, Group::Modp2048.exponent_bits()));

fn params<const LIMBS: usize>(hex: &str) -> FixedMontyParams<LIMBS> {
    // `from_be_hex` of an odd number; every group's prime is tested.
    FixedMontyParams::new_vartime(Odd::from_be_hex(hex))
}

const HEX_1024: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381\
    FFFFFFFFFFFFFFFF";

const HEX_1536: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF";

const HEX_2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
    9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";

const HEX_4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
    514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
    F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
    C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
    9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
    B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
    D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
    43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C\
    1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D\
    99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use super::*;

    fn entropy(mut seed: u8) -> impl FnMut(&mut [u8]) {
        move |out: &mut [u8]| {
            for byte in out {
                seed = seed.wrapping_mul(181).wrapping_add(97);
                *byte = seed;
            }
        }
    }

    #[test]
    fn both_sides_agree_in_every_group() {
        for group in Group::ALL {
            let a = KeyPair::generate(group, &mut entropy(1)).unwrap();
            let b = KeyPair::generate(group, &mut entropy(2)).unwrap();
            assert_eq!(a.public().len(), group.key_len());
            assert_ne!(a.public()[0], 0);
            let secret = a.agree(b.public()).unwrap();
            assert_eq!(secret, b.agree(a.public()).unwrap());
            assert!(secret.len() > group.key_len() - 4);
            assert_eq!(Group::from_id(u64::from(group.id())), Some(group));
        }
    }

    #[test]
    fn a_public_key_is_two_to_the_exponent() {
        let mut bytes = [0; 40];
        bytes[38..].copy_from_slice(&1000_u16.to_be_bytes());
        let pair = KeyPair::from_exponent(Group::Modp1024, &bytes);
        let mut expected = [0; 128];
        expected[127 - 125] = 1;
        assert_eq!(pair.public(), expected);
    }

    #[test]
    fn powers_that_were_made_beforehand_are_those_that_are_computed() {
        let mut draw = entropy(5);
        for group in Group::ALL {
            let unused = U320::BYTES - group.exponent_bits() as usize / 8;
            for fill in 0..8 {
                let mut bytes = [0; U320::BYTES];
                match fill {
                    0 => {}
                    1 => bytes[unused..].fill(0xff),
                    _ => draw(&mut bytes[unused..]),
                }
                let exponent = U320::from_be_slice(&bytes);
                let computed = group.power(&[2], &exponent);
                assert_eq!(group.power_of_two(&exponent), *computed);
            }
        }
    }

    #[test]
    fn weak_public_keys_are_refused() {
        for group in Group::ALL {
            let check = |key: &[u8]| group.check_public_key(key);
            let prime = group.prime();
            let less = |n: u32| {
                let mut key = prime.clone();
                let mut low = [0; 8];
                low.copy_from_slice(&key[key.len() - 8..]);
                let low = u64::from_be_bytes(low) - u64::from(n);
                let at = key.len() - 8;
                key[at..].copy_from_slice(&low.to_be_bytes());
                key
            };
            for weak in [&[][..], &[0], &[1], &[0, 0, 2], &[0xff; 3]] {
                assert_eq!(check(weak), Err(Error::WeakPublicKey));
            }
            for n in [0, 1, 2, 0xff_ffff] {
                assert_eq!(check(&less(n)), Err(Error::WeakPublicKey), "p - {n}");
            }
            assert_eq!(check(&less(1 << 24)), Ok(()));
            let mut one = vec![0; group.key_len()];
            one[0] = 1;
            assert_eq!(check(&one), Err(Error::WeakPublicKey), "one bit");
            assert_eq!(check(&[0x7f; 40]), Ok(()), "39 zeros");
            assert_eq!(check(&[0xff; 40]), Err(Error::WeakPublicKey), "no zero");
            assert_eq!(
                check(&vec![0x55; group.key_len() + 1]),
                Err(Error::WeakPublicKey)
            );
            let mut padded = vec![0; 5];
            padded.extend([0x55; 40]);
            assert_eq!(check(&padded), Ok(()));
        }
    }

    #[test]
    fn a_broken_source_of_randomness_is_noticed() {
        let wrong = KeyPair::generate(Group::Modp1024, &mut |out: &mut [u8]| out.fill(0));
        assert_eq!(wrong.unwrap_err(), Error::Entropy);
    }
}
