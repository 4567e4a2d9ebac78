//! What a misspelt key was probably meant to be.

/// ` (did you mean "listen"?)`, or nothing where no known key is near.
pub(super) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map(|key| format!(" (did you mean {key:?}?)")).unwrap_or_default()
}

/// The known key that is near enough that a typo explains it.
pub(super) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const NEAR: f64 = 0.8;
    known
        .into_iter()
        .map(|key| (strsim::jaro_winkler(given, key), key))
        .filter(|(nearness, _)| *nearness >= NEAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, key)| key)
}
