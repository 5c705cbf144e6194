//! Man pages, from the command lines' definitions; one for each subcommand of `vdfs`.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::command_lines;
use super::files::File;

const HEADING_MAX: usize = 40;

pub(super) fn files(prefix: &Path) -> Vec<File> {
    let mut files = Vec::new();
    for (_, section, command) in command_lines() {
        // Gives subcommands their full names.
        let mut command = command.disable_help_subcommand(true);
        command.build();
        for command in with_subcommands(&command) {
            let place = format!("share/man/man{section}/{}.{section}", name(command));
            files.push(File::text(prefix.join(place), page(command, section)));
        }
    }
    files
}

fn with_subcommands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(with_subcommands);
    std::iter::once(command).chain(below).collect()
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command, section: &str) -> Vec<u8> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    render(&man, command, section, &mut page).expect("memory takes all that is written");
    page
}

fn render(man: &Man, command: &Command, section: &str, page: &mut Vec<u8>) -> io::Result<()> {
    title(name(command), section).to_writer(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    if let Some(text) = command.get_after_help() {
        notes(&text.to_string()).to_writer(page)?;
    }
    see_also().to_writer(page)
}

/// As `Man` would write it, but with a date that is empty and not left out: what follows would be
/// taken for it.
fn title(name: &str, section: &str) -> Roff {
    let mut roff = Roff::default();
    let source = concat!("VDFS ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [name, section, " ", source, "VDFS"]);
    roff
}

/// The end of a help text: `Heading:` begins a section, indented lines stay as they are.
fn notes(text: &str) -> Roff {
    let mut roff = Roff::default();
    let mut is_verbatim = false;
    if heading(text.lines().next().unwrap_or_default()).is_none() {
        roff.control("SH", ["NOTES"]);
    }
    for line in text.lines() {
        if line.starts_with(' ') != is_verbatim {
            is_verbatim = !is_verbatim;
            roff.control(if is_verbatim { "nf" } else { "fi" }, []);
        }
        match heading(line) {
            Some(heading) => roff.control("SH", [heading.as_str()]),
            None if line.is_empty() => roff.control("PP", []),
            None => roff.text([roman(line)]),
        };
    }
    if is_verbatim {
        roff.control("fi", []);
    }
    roff
}

/// The words of a heading in capitals, but for options, which would be other ones. A longer line
/// that ends with a colon is a sentence.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_suffix(':')?;
    if line.starts_with(' ') || line.len() > HEADING_MAX {
        return None;
    }
    let capital = |word: &str| match word.starts_with('-') {
        true => word.to_owned(),
        false => word.to_uppercase(),
    };
    let words: Vec<String> = text.split(' ').map(capital).collect();
    Some(words.join(" "))
}

fn see_also() -> Roff {
    let mut roff = Roff::default();
    let pages = command_lines().map(|(name, section, _)| format!("{name}({section})"));
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_indented_lines_and_take_headings() {
        let roff = notes("A word.\n\nOptions of -o:\n  a   b\nThe end").to_roff();
        let expected =
            ".SH NOTES\nA word.\n.PP\n.SH \"OPTIONS OF -o\"\n.nf\n  a   b\n.fi\nThe end\n";
        assert_eq!(roff.replace("\\-", "-"), expected);
    }

    #[test]
    fn notes_take_a_sentence_with_a_colon_for_text() {
        let roff = notes("Whoever needs an identity asks for one like this:\n  a").to_roff();
        assert_eq!(roff.matches(".SH").count(), 1, "{roff}");
    }

    #[test]
    fn files_have_a_page_for_each_subcommand() {
        let files = files(Path::new("/usr"));
        let has = |place: &str| files.iter().any(|file| file.place == Path::new(place));
        assert!(has("/usr/share/man/man1/vdfs.1"));
        assert!(has("/usr/share/man/man1/vdfs-up.1"));
        assert!(has("/usr/share/man/man8/mount.vdfs.8"));
    }
}
