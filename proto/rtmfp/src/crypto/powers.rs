//! Powers of two, the generator of every group.
//!
//! The base never changes, so what a power is made of can be made beforehand: two to each
//! digit at each place. A power is one product per place then, without the squarings that
//! are most of the work otherwise.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{U320, Uint};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

/// The bits of a digit.
const BITS: usize = 4;
const DIGITS: usize = 1 << BITS;

/// For every place of an exponent the powers of its digits, in Montgomery form.
pub(super) struct Powers<const LIMBS: usize>(Vec<[Uint<LIMBS>; DIGITS]>);

impl<const LIMBS: usize> Powers<LIMBS> {
    /// For exponents of so many bits.
    pub(super) fn new(params: &FixedMontyParams<LIMBS>, bits: u32) -> Self {
        let one = FixedMontyForm::one(params);
        let mut base = one + one;
        let places = bits.div_ceil(4);
        Self(
            (0..places)
                .map(|_| {
                    let mut power = one;
                    let row = std::array::from_fn(|_| {
                        let this = power.to_montgomery();
                        power *= base;
                        this
                    });
                    base = power;
                    row
                })
                .collect(),
        )
    }

    /// Two to the power of `exponent`, of which only the bits asked for in the beginning
    /// count. Which digits it has does not show in time or in what is read.
    pub(super) fn raise(&self, params: &FixedMontyParams<LIMBS>, exponent: &U320) -> Uint<LIMBS> {
        let mut product = FixedMontyForm::one(params);
        let mut bytes = exponent.to_le_bytes();
        let digits = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        for (row, digit) in self.0.iter().zip(digits) {
            let mut factor = row[0];
            for (other, power) in (0_u8..).zip(row).skip(1) {
                factor.conditional_assign(power, other.ct_eq(&digit));
            }
            product *= FixedMontyForm::from_montgomery(factor, params);
            factor.zeroize();
        }
        bytes.as_mut().zeroize();
        let power = product.retrieve();
        product.as_montgomery_mut().zeroize();
        power
    }
}
