//! Scores pairs with the crate ssimulacra2: pairs in, a number a line out. Started by `python -m benchmarks.accuracy`.
//!
//! A pair is its height and width, 32 bits each, then the target's and the generated image's RGB, 8 bits a value.

use ssimulacra2::{compute_frame_ssimulacra2, ColorPrimaries, Rgb, TransferCharacteristic};
use std::io::{self, Read};

fn image(pixels: &[u8], width: usize, height: usize) -> Rgb {
    let data = pixels.chunks(3).map(|p| [0, 1, 2].map(|c| p[c] as f32 / 255.0)).collect();
    Rgb::new(data, width, height, TransferCharacteristic::SRGB, ColorPrimaries::BT709).unwrap()
}

fn main() {
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input).unwrap();
    let mut rest = &input[..];
    while !rest.is_empty() {
        let side = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (height, width) = (side(0), side(4));
        let bytes = height * width * 3;
        let (target, generated) = rest[8..8 + 2 * bytes].split_at(bytes);
        let score = compute_frame_ssimulacra2(image(target, width, height), image(generated, width, height));
        println!("{}", score.unwrap());
        rest = &rest[8 + 2 * bytes..];
    }
}
