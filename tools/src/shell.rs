//! What a shell and `man` want to know of the command line: completions and manual pages, generated from the commands.
//!
//! Callers: the binary, which alone knows the whole tree of commands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::failure::{self, Failure};
use crate::output::print_text;

/// Shown below the options of `completions`.
pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  alluvium completions bash > ~/.local/share/bash-completion/completions/alluvium
  alluvium completions zsh > ~/.zfunc/_alluvium        with ~/.zfunc in fpath
  alluvium completions fish > ~/.config/fish/completions/alluvium.fish";

/// Shown below the options of `man`.
pub const MAN_EXAMPLES: &str = "\
Examples:
  alluvium man | man -l -                              read the main page
  alluvium man topic create | man -l -
  alluvium man --dir ~/.local/share/man/man1           write a page for each command";

/// For which shell.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Which pages.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The page of this command, as in `topic create`; without it the main page
    #[arg(conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which is created
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl CompletionsArgs {
    /// Writes the shell's script to standard output.
    pub fn run(&self, mut binary: Command) -> ExitCode {
        let name = binary.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut binary, name, &mut script);
        ended(print_text(&String::from_utf8_lossy(&script)))
    }
}

impl ManArgs {
    /// Writes one page to standard output, or all to a directory.
    pub fn run(&self, binary: Command) -> ExitCode {
        ended(self.write(binary))
    }

    fn write(&self, binary: Command) -> Result<()> {
        if let Some(dir) = &self.dir {
            let context = || dir.display().to_string();
            std::fs::create_dir_all(dir).with_context(context)?;
            return clap_mangen::generate_to(binary, dir).with_context(context);
        }
        let mut binary = binary.disable_help_subcommand(true);
        // Gives commands their full names and the options that hold for all.
        binary.build();
        let mut command = &binary;
        for word in &self.command {
            command = match command.find_subcommand(word) {
                Some(found) => found,
                None => bail!(Failure::Usage(format!(
                    "{} has no command {word}",
                    command.get_name()
                ))),
            };
        }
        let mut page = Vec::new();
        Man::new(command.clone()).render(&mut page)?;
        print_text(&String::from_utf8_lossy(&page))
    }
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
