//! `callstate simulate`: realistic traffic, and what became of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::call::KnownEvent;
use crate::clock::Clock;
use crate::config::{Config, Secret};
use crate::simulate::check::{Check, Found};
use crate::simulate::plan::{Faults, Plan, Settings, Timing};
use crate::simulate::proof::Proof;
use crate::simulate::report::Report;
use crate::simulate::sender::{Orders, Sender, Sent};
use crate::simulate::target::Target;
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};
use super::stop::Stop;

/// How many calls there are where nothing else says so.
const CALLS: u64 = 1000;
/// How long a window is where nothing else says so.
const WINDOW: Duration = Duration::from_hours(24);
/// How far back calls lie where nothing else says so.
const BACKDATE: Duration = Duration::from_hours(1);
/// The longest span of time that is taken: ten years.
const LONGEST: Duration = Duration::from_hours(24 * 3650);
/// How often a bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a plain line tells of the progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The options of `simulate`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint of the running callstate [default: /webhooks where `listen` says]
    #[arg(long, help_heading = "Where to")]
    url: Option<String>,
    /// Send even where the URL is not of this machine
    #[arg(long, help_heading = "Where to")]
    yes_really: bool,
    #[arg(
        long,
        conflicts_with = "private_key",
        help_heading = "Where to",
        help = "Send a bearer token with each delivery: the text, env:NAME or file:PATH"
    )]
    token: Option<String>,
    /// Sign each delivery with this RSA key, a file in PEM
    #[arg(long, value_name = "FILE", help_heading = "Where to")]
    private_key: Option<PathBuf>,
    #[arg(
        long,
        value_name = "KEY",
        help_heading = "Where to",
        help = "The API key for the check: the text, env:NAME or file:PATH"
    )]
    api_key: Option<String>,

    /// What the traffic is made from; the same seed makes the same traffic [default: of the time]
    #[arg(long, help_heading = "What")]
    seed: Option<u64>,
    /// When the traffic should seem to be sent; with the same seed, the same bytes [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant, help_heading = "What")]
    at: Option<DateTime<Utc>>,
    /// How many calls [default: 1000, or as many as --duration leaves time for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "What")]
    calls: Option<u64>,
    /// Over how many projects the calls are spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "What")]
    projects: u32,
    /// Over how much of the past the calls are spread [default: 1h, with --time-scale a day]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "What")]
    backdate: Option<Duration>,

    /// How many deliveries a second [default: as fast as it goes]
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "How")]
    rate: Option<f64>,
    /// How long to begin calls
    #[arg(long, value_parser = duration, help_heading = "How")]
    duration: Option<Duration>,
    /// Tell calls as they happen, so many times faster than life: 1440 makes a day of a minute
    #[arg(long, value_name = "N", value_parser = scale, conflicts_with = "rate", help_heading = "How")]
    time_scale: Option<f64>,
    /// How many deliveries may be under way at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096), help_heading = "How")]
    connections: u16,
    /// How long a delivery that is not answered 2xx is sent again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "How")]
    patience: Duration,

    /// The share of events that are delivered again, as 0.05 or 5%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share, help_heading = "What goes wrong")]
    duplicates: f64,
    /// The share of events that are delivered after later ones
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share, help_heading = "What goes wrong")]
    reorder: f64,
    /// The share of events that never come
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share, help_heading = "What goes wrong")]
    drop: f64,
    /// The event types that the customer has switched off, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', help_heading = "What goes wrong")]
    switched_off: Vec<KnownEvent>,
    /// The share of events that are followed by one of a type that does not exist yet
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share, help_heading = "What goes wrong")]
    unknown: f64,

    /// Which calls to check at the end: all, none, or a share of them
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = checked_share, help_heading = "What to say")]
    check: f64,
    /// How to print the report
    #[arg(long, value_enum, default_value_t, help_heading = "What to say")]
    format: Format,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "is not a duration, such as 90s, 5m or 30d".to_owned())?;
    if duration <= LONGEST { Ok(duration) } else { Err("is more than ten years".to_owned()) }
}

/// A time that is not so early that a call before it would be in no year that the
/// provider can write.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let at = super::time(text)?;
    if at >= DateTime::UNIX_EPOCH { Ok(at) } else { Err("is before 1970".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let share = number.ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "is not a share, from 0 to 1 or from 0% to 100%".to_owned())
}

fn checked_share(text: &str) -> Result<f64, String> {
    match text {
        "all" => Ok(1.0),
        "none" => Ok(0.0),
        _ => share(text).map_err(|_| "is not all, none or a share such as 5%".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate));
    rate.ok_or_else(|| "is not a number from 0.001 to 1000000".to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (1.0..=1e6).contains(scale));
    scale.ok_or_else(|| "is not a number from 1 to 1000000".to_owned())
}

/// Sends, checks, and prints the report. A call that is not as it should be, or
/// a delivery that was never taken, fails the command.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let clock = Clock::system();
    let (format, api_key) = (options.format, secret("--api-key", options.api_key.as_deref())?);
    let orders = orders(options, &config, &clock)?;
    let client = orders.target.client(orders.connections).map_err(Failure::new)?;
    let stop = Stop::on_signals().map_err(Failure::new)?;

    let sender = Arc::new(Sender::new(orders, client.clone(), clock));
    let sent = send(&sender, &stop).await;
    let is_interrupted = sent.abandoned.is_none() && sender.halt().is_asked_for();
    let interrupted = || is_interrupted.then(|| "interrupted".to_owned());
    let ended_early = sent.abandoned.clone().or_else(interrupted);

    let Orders { plan, target, connections, patience, checked_share, .. } = sender.orders();
    // Where nothing was taken there is nothing to ask for.
    let found = if *checked_share > 0.0 && sent.tally.events > 0 {
        let check = Check::new(plan.clone(), target.clone(), client, api_key, *patience);
        // What was sent before an interruption is checked all the same; it
        // takes another one to end that.
        let stop = (!is_interrupted).then_some(&stop);
        Some(look(&Arc::new(check), &sent, *connections, stop).await)
    } else {
        None
    };
    let (found, unanswered) = match found {
        Some(Ok(found)) => (Some(found), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let report = Report::new(target, plan, &sent, ended_early, found);
    match format {
        Format::Text => output::line(&report.to_string())?,
        Format::Json => output::json(&report)?,
    }
    match unanswered {
        Some(error) => Err(error),
        None if report.is_well() => Ok(()),
        None => Err(Failure::Told),
    }
}

/// What the options ask for.
fn orders(options: Options, config: &Config, clock: &Clock) -> Result<Orders, Failure> {
    let now = clock.now();
    let url = match &options.url {
        Some(url) => url.clone(),
        None => default_url(config.listen)?,
    };
    let target =
        Target::read(&url).map_err(|why| Failure::Usage(format!("--url: {url:?} {why}")))?;
    if !target.is_loopback() && !options.yes_really {
        return Err(Failure::Usage(format!(
            "--url: {} is not this machine; made-up calls would be stored there for good. \
             Say --yes-really if you mean it",
            target.endpoint()
        )));
    }
    let at = options.at.unwrap_or(now).trunc_subsecs(0);
    if at > now {
        return Err(Failure::Usage(format!("--at: {at} has not come yet")));
    }
    let proof = proof(&options)?;
    let timing = timing(&options)?;
    let settings = Settings {
        // Short enough to be typed again; no two runs are alike anyway, but for `at`.
        seed: options.seed.unwrap_or_else(|| now.timestamp_micros().unsigned_abs() % 1_000_000),
        at,
        timing,
        projects: options.projects,
        faults: Faults {
            duplicates: options.duplicates,
            reorder: options.reorder,
            drop: options.drop,
            unknown: options.unknown,
            switched_off: BTreeSet::from_iter(options.switched_off),
        },
        auth_type: proof.auth_type(),
        time_zone: config.provider_time_zone,
    };
    // Only where calls follow each other until the time is up need their number not be known.
    let is_endless = options.duration.is_some() && options.time_scale.is_none();
    let calls = options.calls.or((!is_endless).then_some(CALLS));
    Ok(Orders {
        plan: Plan::new(settings),
        target,
        proof,
        calls,
        duration: options.duration,
        rate: options.rate,
        connections: options.connections.into(),
        patience: options.patience,
        checked_share: options.check,
    })
}

/// The default endpoint of the service that listens there.
fn default_url(listen: SocketAddr) -> Result<String, Failure> {
    if listen.port() == 0 {
        let text = "--url: is needed, as listen does not say at which port";
        return Err(Failure::Usage(text.to_owned()));
    }
    let address = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(format!("http://{}/webhooks", SocketAddr::new(address, listen.port())))
}

/// When the calls happen: in the past, or in a window that goes by.
fn timing(options: &Options) -> Result<Timing, Failure> {
    let span = |span: Duration| TimeDelta::from_std(span).map_err(Failure::new);
    let Some(scale) = options.time_scale else {
        return Ok(Timing::Past { past: span(options.backdate.unwrap_or(BACKDATE))? });
    };
    let length = match (options.duration, options.backdate) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(
                "with --time-scale, --duration and --backdate say the same: give one".to_owned(),
            ));
        }
        (Some(duration), None) => duration.mul_f64(scale),
        (None, backdate) => backdate.unwrap_or(WINDOW),
    };
    if length > LONGEST {
        return Err(Failure::Usage("--duration × --time-scale is more than ten years".to_owned()));
    }
    let calls = options.calls.unwrap_or(CALLS);
    Ok(Timing::Window { length: span(length)?, calls, scale })
}

fn proof(options: &Options) -> Result<Proof, Failure> {
    if let Some(path) = &options.private_key {
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::Usage(format!("--private-key: {} {why}", path.display()))
        };
        let pem =
            fs::read_to_string(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        return Proof::of_private_key(&pem).map_err(|why| wrong(&why));
    }
    Ok(secret("--token", options.token.as_deref())?.map_or(Proof::None, Proof::Bearer))
}

/// A secret that stands there, in a variable or in a file, as in the
/// configuration.
fn secret(option: &str, given: Option<&str>) -> Result<Option<Secret>, Failure> {
    let Some(given) = given else { return Ok(None) };
    let wrong = |why: String| Failure::Usage(format!("{option}: {why}"));
    let text = if let Some(name) = given.strip_prefix("env:") {
        std::env::var(name).map_err(|_| wrong(format!("the variable {name} is not set")))?
    } else if let Some(path) = given.strip_prefix("file:") {
        fs::read_to_string(Path::new(path))
            .map_err(|error| wrong(format!("cannot read {path}: {error}")))?
    } else {
        given.to_owned()
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("consists of visible ASCII characters without spaces".to_owned()));
    }
    Ok(Some(Secret::new(text)))
}

async fn send(sender: &Arc<Sender>, stop: &Stop) -> Sent {
    let orders = sender.orders();
    let (calls, duration) = (orders.calls, orders.duration);
    let bar = match (calls, duration) {
        (Some(calls), _) => bar(calls, "{bar:40} {human_pos}/{human_len} calls, {msg}, {eta} left"),
        (None, _) => bar(0, "{spinner} {human_pos} calls, {msg}, {elapsed}"),
    };
    let draw = || {
        bar.set_position(sender.told());
        bar.set_message(format!("{} deliveries taken", HumanCount(sender.taken())));
    };
    let plain = || {
        eprintln!("{} calls told, {} deliveries taken", sender.told(), sender.taken());
    };
    let run = sender.run();
    let sent = watch(run, &bar, draw, plain, stop.requested(), || sender.halt().halt()).await;
    bar.finish_and_clear();
    sent
}

/// Asks the service for the calls. Without a `stop` the process has to be ended
/// to end it.
async fn look(
    check: &Arc<Check>,
    sent: &Sent,
    connections: usize,
    stop: Option<&Stop>,
) -> Result<Found, Failure> {
    let bar = bar(sent.accounts.len() as u64, "{bar:40} {human_pos}/{human_len} calls checked");
    let draw = || bar.set_position(check.done());
    let plain = || eprintln!("{} calls checked", check.done());
    let stop = async {
        match stop {
            Some(stop) => stop.requested().await,
            None => std::future::pending().await,
        }
    };
    let run = check.run(sent.accounts.clone(), connections);
    let found = watch(run, &bar, draw, plain, stop, || check.halt().halt()).await;
    bar.finish_and_clear();
    found.map_err(Failure::new)
}

/// Waits for the work, tells of its progress, and passes on that it should end.
async fn watch<T>(
    work: impl Future<Output = T>,
    bar: &ProgressBar,
    draw: impl Fn(),
    plain: impl Fn(),
    stop: impl Future<Output = ()>,
    halt: impl Fn(),
) -> T {
    let every = if bar.is_hidden() { LINE_EVERY } else { BAR_EVERY };
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    let mut is_stopped = false;
    tokio::pin!(work, stop);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut stop, if !is_stopped => {
                is_stopped = true;
                halt();
            }
            _ = ticks.tick() => if bar.is_hidden() { plain() } else { draw() },
        }
    }
}

/// A bar on a terminal; hidden elsewhere.
fn bar(length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
