//! The links of the documentation lead to files and headings that exist.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The pages, by path, without the text of code blocks.
fn pages() -> HashMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "benches/README.md",
        "deploy/README.md",
        "fuzz/README.md",
    ]
    .map(|name| root.join(name))
    .into_iter()
    .chain(in_docs.filter(|path| path.extension().is_some_and(|it| it == "md")))
    .map(|path| {
        let text = without_code(&fs::read_to_string(&path).unwrap());
        (path, text)
    })
    .collect()
}

fn without_code(text: &str) -> String {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let mut anchors: Vec<String> = Vec::new();
    for heading in headings {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
        let anchor: String = kept.map(|it| if it == ' ' { '-' } else { it }).collect();
        let same = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}

/// The targets of the inline links of a page.
fn targets(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let mut links = 0;
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for target in targets(page).filter(|target| !target.contains("://")) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let Ok(file) = file.canonicalize() else {
                broken.push(format!("{}: {target}", path.display()));
                continue;
            };
            let has_anchor = |page: &String| anchors(page).iter().any(|it| it == anchor);
            if !anchor.is_empty() && !pages.get(&file).is_some_and(has_anchor) {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_index_lists_every_page() {
    let pages = pages();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let index = &pages[&docs.join("README.md")];
    for path in pages.keys().filter(|path| path.starts_with(&docs)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "{name}");
    }
}
