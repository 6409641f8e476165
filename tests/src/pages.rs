//! Commands of the documentation, as scripts.

/// The `sh` blocks of a section (`## heading`), in order.
#[must_use]
pub fn script(page: &str, heading: &str) -> String {
    let lines = page.lines().skip_while(|line| title(line) != Some(heading)).skip(1);
    commands(lines.take_while(|line| title(line).is_none()))
}

/// The `sh` blocks of a page, in order.
#[must_use]
pub fn whole(page: &str) -> String {
    commands(page.lines())
}

/// The headings of a page's sections.
pub fn sections(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(title)
}

fn title(line: &str) -> Option<&str> {
    line.strip_prefix("## ")
}

fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in lines {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# Page\n```sh\nzero\n```\n## One\n```sh\none\n```\n```text\nno\n```\n## Two\n```sh\ntwo\n```\n";

    #[test]
    fn a_section_has_its_own_commands_alone() {
        assert_eq!(script(PAGE, "One"), "one\n");
        assert_eq!(script(PAGE, "Three"), "");
        assert_eq!(whole(PAGE), "zero\none\ntwo\n");
        assert_eq!(sections(PAGE).collect::<Vec<_>>(), ["One", "Two"]);
    }
}
