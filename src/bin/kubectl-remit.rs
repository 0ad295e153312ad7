//! `kubectl remit`.

fn main() -> remit::cli::Exit {
    remit::cli::main()
}
