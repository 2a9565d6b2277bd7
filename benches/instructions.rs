//! How many instructions the pure parts take: counted by callgrind, so that it says the same on every machine
//! of a kind.

mod crowd;
mod parts;

use std::{env, process::Command};

use parts::PARTS;

/// How often a part is done: few times and many, as the difference has nothing of the program's start in it.
const TIMES: [u64; 2] = [20, 120];

/// The most instructions that each may take: a sixth above what was counted.
const MOST: &[(&str, f64)] = &[
    ("encode ten lines", 4_300.0),
    ("parse ten lines", 12_000.0),
    ("publish, and take it for the only reader", 8_500.0),
    ("deliver, to a connection with one reader", 1_500.0),
    ("deliver, to a connection with a hundred readers", 1_100.0),
    ("expand ten nested groups with ten users each", 155_000.0),
    ("match a topic with a pattern", 9_000.0),
    ("find one of a hundred routes", 9_700.0),
    ("header fields of a request and its answer", 29_500.0),
];

fn main() {
    let mut arguments = env::args().skip(1);
    if let (Some(part), Some(times)) = (arguments.next(), arguments.next()) {
        let number = |text: String| text.parse::<usize>().expect("a number");
        let mut part = (PARTS[number(part)].make)();
        return (0..number(times)).for_each(|_| part());
    }
    let mut too_many = Vec::new();
    for (at, part) in PARTS.iter().enumerate() {
        let [few, many] = TIMES.map(|times| counted(at, times));
        let did = (TIMES[1] - TIMES[0]) * u64::from(part.times);
        let each = (many - few) as f64 / did as f64;
        let name = part.name;
        println!("{name}: {each:.0} instructions");
        let bound = MOST.iter().find(|(of, _)| *of == name);
        let (_, most) = bound.expect("each part has a bound");
        if each > *most {
            too_many.push(format!(
                "{name}: {each:.0} instructions are more than {most}"
            ));
        }
    }
    assert!(too_many.is_empty(), "{}", too_many.join("\n"));
}

/// The instructions of a program that does a part so often.
fn counted(part: usize, times: u64) -> u64 {
    let program = env::current_exe().expect("a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([part.to_string(), times.to_string()])
        .output()
        .expect("valgrind, which `make tools` installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, collected) = collected.unwrap_or_else(|| panic!("no count: {said}"));
    collected.trim().parse().expect("a number")
}
