//! Reading little-endian fields out of bytes that may be anything.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Walks over a slice; every step checks that the bytes are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A LEB128 number of at most five bytes, in its shortest form: one number, one encoding.
    pub(crate) fn varint(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in [0u32, 7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { u32::try_from(value).ok() } else { None };
            }
        }
        None
    }
}

/// Appends `value` in the form that [`Reader::varint`] reads.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u32) {
    let mut rest = value;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// The length of something that was bounded when it was made.
///
/// # Panics
///
/// If it does not fit, which the bounds of the formats exclude.
pub(crate) fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("because every length in the formats is bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_encoding_each() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Some(value));
            assert!(reader.rest().is_empty());
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), None, "not the shortest form");
        assert_eq!(Reader::new(&[0xff; 6]).varint(), None, "too large");
        assert_eq!(Reader::new(&[0x80]).varint(), None, "cut short");
    }
}
