//! Asks a person before something that stops the application and changes its data.

use std::io::{self, BufRead, IsTerminal, Write};

use super::CliError;

/// Goes on if the person in front agrees, or has said `--yes` already. Where nobody can be asked, only the
/// latter will do.
pub async fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CliError::Failed("nobody can be asked here, and nothing was done: say --yes".into()));
    }
    let question = question.to_owned();
    let asked = tokio::task::spawn_blocking(move || agrees(&question, &mut io::stdin().lock(), &mut io::stderr()));
    match asked.await.map_err(io::Error::other)?? {
        true => Ok(()),
        false => Err(CliError::Failed("not confirmed: nothing was done".into())),
    }
}

/// Everything but a clear yes is a no.
fn agrees(question: &str, answers: &mut impl BufRead, out: &mut impl Write) -> io::Result<bool> {
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, agreed) in [
            ("y\n", true),
            ("Y\n", true),
            (" yes \n", true),
            ("yes", true),
            ("\n", false),
            ("", false),
            ("n\n", false),
            ("yes please\n", false),
            ("no\nyes\n", false),
        ] {
            let mut shown = Vec::new();
            assert_eq!(agrees("Go on?", &mut answer.as_bytes(), &mut shown).unwrap(), agreed, "{answer:?}");
            assert_eq!(shown, b"Go on? [y/N] ");
        }
    }
}
