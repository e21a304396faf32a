//! `alluvium completions`: what a shell needs to complete the command line.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Writes the completions of a shell.
pub fn write(shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    // The generator panics where it cannot write, for example into a closed pipe: it gets memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "alluvium", &mut script);
    out.write_all(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = Vec::new();
            write(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("until-caught-up"), "{shell}");
        }
    }
}
