//! Where the database has lived, as far as the numbers of transactions go.
//!
//! Postgres counts transactions anew where a dump is restored, and takes numbers
//! again after a failover that lost some. [`epoch`] notices that by where the
//! database is, and moves the numbers up from there on, above all that are
//! stored. It is asked for each connection that writes or listens, before it
//! does; each of these changes ends the connections.
//!
//! A copy that is put back knows nothing of what was begun after it was made, and
//! numbers its epochs as the lost ones were. So an epoch is known by its [`Name`],
//! which does not come again, and [`History`] tells where one that is lost parts
//! from ours.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::{Error, bucket::Buckets};

/// An epoch: a place where the database has lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// What is added to a transaction's number.
    pub transaction_offset: i64,
}

/// What an epoch is known by, in whichever copy of its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// How many there were by then in the history of its database, it included.
    pub number: i32,
    /// When it began; `None` where that was not noted yet.
    pub begun_at: Option<DateTime<Utc>>,
}

/// The present epoch, begun where the database turns out to be elsewhere.
///
/// # Errors
///
/// Where the database refuses.
pub async fn epoch(conn: &mut PgConnection) -> Result<Epoch, Error> {
    loop {
        let place = sqlx::query!(
            r#"
            select database as "database!", transaction_offset as "transaction_offset?"
            from (select callstate_place() as database) as present
            left join lateral (
                select database, transaction_offset
                from stream_epochs
                order by epoch desc
                limit 1
            ) as latest using (database)
            "#,
        )
        .fetch_one(&mut *conn)
        .await?;
        if let Some(transaction_offset) = place.transaction_offset {
            return Ok(Epoch { transaction_offset });
        }
        begin_epoch(conn, &place.database).await?;
    }
}

/// Begins an epoch, unless somebody else does.
async fn begin_epoch(conn: &mut PgConnection, database: &str) -> Result<(), Error> {
    let buckets = Buckets::of_database(&mut *conn).await?;
    sqlx::query!(
        r#"
        with
        present as (select pg_current_xact_id()::text::bigint as transaction),
        latest as (
            select epoch, transaction_offset, begins_at
            from stream_epochs
            order by epoch desc
            limit 1
        ),
        -- what must stay below all that is stored from here on
        stored as (
            select max(events.transaction) as transaction
            from unnest($1::int[]) as buckets (bucket)
            cross join lateral (
                select transaction
                from events
                where events.bucket = buckets.bucket
                order by transaction desc
                limit 1
            ) as events
        ),
        epoch as (
            select coalesce(latest.epoch, 0) + 1 as epoch,
                present.transaction as transaction,
                greatest(
                    latest.transaction_offset,
                    latest.begins_at + 1 - present.transaction,
                    stored.transaction + 1 - present.transaction,
                    0
                ) as transaction_offset
            from present
            cross join stored
            left join latest on true
        )
        insert into stream_epochs (epoch, database, transaction_offset, begins_at)
        select epoch, $2, transaction_offset, transaction + transaction_offset
        from epoch
        on conflict (epoch) do nothing
        "#,
        &buckets.all(),
        database,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An epoch of ours.
#[derive(Debug, Clone, Copy)]
struct Begun {
    name: Name,
    /// Less than any transaction that stored something in it.
    begins_at: i64,
}

/// The epochs that the database remembers, from the first to the present one.
#[derive(Debug)]
pub(super) struct History(Vec<Begun>);

impl History {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Where the database cannot be asked.
    pub(super) async fn read(executor: impl PgExecutor<'_>) -> Result<Self, Error> {
        let epochs =
            sqlx::query!("select epoch, begun_at, begins_at from stream_epochs order by epoch")
                .map(|row| Begun {
                    name: Name { number: row.epoch, begun_at: row.begun_at },
                    begins_at: row.begins_at,
                })
                .fetch_all(executor)
                .await?;
        Ok(Self(epochs))
    }

    /// The present epoch; `None` before there was one.
    pub(super) fn present(&self) -> Option<Name> {
        self.0.last().map(|epoch| epoch.name)
    }

    /// Where the first epoch begins that is new to whoever listened in that one;
    /// `None` if there is none, as it is the present one.
    ///
    /// One that is not known began in a copy that was lost. The copy that took its
    /// place is an older one, and what it has from before that, the lost one had too.
    /// The epochs that it has begun since began later, and those from the number of
    /// the lost one on are of them by whatever clock. Where neither tells one, all
    /// counts as new.
    pub(super) fn parts_from(&self, name: Name) -> Option<i64> {
        let is_known = self.0.iter().any(|epoch| epoch.name == name);
        let mut epochs = self.0.iter();
        let first = if is_known {
            epochs.find(|epoch| epoch.name.number > name.number)
        } else {
            let is_newer = |of: Name| of.number >= name.number || of.begun_at > name.begun_at;
            epochs.find(|epoch| is_newer(epoch.name)).or(self.0.first())
        };
        first.map(|epoch| epoch.begins_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    fn name(number: i32, begun_at: impl Into<Option<i64>>) -> Name {
        let begun_at = begun_at.into().and_then(DateTime::from_timestamp_micros);
        Name { number, begun_at }
    }

    fn history(epochs: &[(Name, i64)]) -> History {
        History(epochs.iter().map(|&(name, begins_at)| Begun { name, begins_at }).collect())
    }

    #[test]
    fn an_epoch_of_ours_ends_where_the_next_begins() {
        let epochs =
            [(name(1, None), 10), (name(2, None), 20), (name(3, 300), 30), (name(4, 200), 40)];
        let ours = history(&epochs);
        for (place, (epoch, _)) in epochs.iter().enumerate() {
            let next = epochs.get(place + 1).map(|(_, begins_at)| *begins_at);
            assert_eq!(ours.parts_from(*epoch), next, "{epoch:?}");
        }
    }

    #[test]
    fn a_lost_epoch_parts_where_the_first_begins_that_it_did_not_know() {
        let ours = history(&[(name(1, None), 10), (name(2, 200), 20), (name(3, 300), 30)]);
        for (lost, begins_at) in [
            // It began before ours of the same number, or after by a clock that was wrong.
            (name(2, 150), 20),
            (name(2, 250), 20),
            // Another was lost with it, that began before ours.
            (name(3, 150), 20),
            (name(3, 250), 30),
            (name(7, 250), 30),
            // Its clock was ahead of ours.
            (name(7, 900), 10),
            // Its release noted no time: it is older than all that has one.
            (name(2, None), 20),
            (name(7, None), 20),
        ] {
            assert_eq!(ours.parts_from(lost), Some(begins_at), "{lost:?}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many events are stored.
        Store(u8),
        /// The server starts anew; so many numbers are passed over.
        Start(i64),
        Copy,
        /// One of the copies is put back in place of what there is, and started.
        PutBack(Index, i64),
        /// Somebody comes back and is told what came since.
        Listen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..40u8).prop_map(Step::Store),
            2 => (0..20i64).prop_map(Step::Start),
            1 => Just(Step::Copy),
            1 => (any::<Index>(), 0..20i64).prop_map(|(copy, gap)| Step::PutBack(copy, gap)),
            3 => Just(Step::Listen),
        ]
    }

    /// A database: its epochs, the number of each event and which one it is.
    #[derive(Debug, Clone)]
    struct Copy {
        epochs: Vec<(Name, i64)>,
        events: Vec<(i64, u64)>,
    }

    impl Copy {
        fn newest(&self) -> i64 {
            let (_, began_at) = self.epochs[self.epochs.len() - 1];
            self.events.last().map_or(began_at, |(transaction, _)| began_at.max(*transaction))
        }

        fn begin_epoch(&mut self, now: i64, gap: i64) {
            let number = i32::try_from(self.epochs.len()).unwrap() + 1;
            self.epochs.push((name(number, now), self.newest() + 1 + gap));
        }
    }

    proptest! {
        /// However servers start and copies are put back, whoever listened has heard all that there is
        /// each time that it was told; and nothing twice as long as nothing was put back.
        #[test]
        fn nothing_is_skipped_wherever_one_comes_from(steps in prop::collection::vec(step(), 0..60)) {
            let mut present = Copy { epochs: vec![(name(1, 0), 0)], events: Vec::new() };
            let mut copies = vec![present.clone()];
            let (mut events, mut heard) = (0, std::collections::BTreeSet::new());
            let (mut at, mut is_put_back) = ((name(1, 0), 0), false);
            for (now, step) in (1..).zip(steps) {
                match step {
                    Step::Store(number) => for _ in 0..number {
                        events += 1;
                        present.events.push((present.newest() + 1, events));
                    },
                    Step::Start(gap) => present.begin_epoch(now, gap),
                    Step::Copy => copies.push(present.clone()),
                    Step::PutBack(copy, gap) => {
                        // Those that were made since are of a database that is given up.
                        copies.truncate(copy.index(copies.len()) + 1);
                        present = copies[copies.len() - 1].clone();
                        present.begin_epoch(now, gap);
                        is_put_back = true;
                    }
                    Step::Listen => {
                        let ours = history(&present.epochs);
                        let (epoch, transaction) = at;
                        let after = ours.parts_from(epoch).map_or(transaction, |it| transaction.min(it - 1));
                        for (_, event) in present.events.iter().filter(|(number, _)| *number > after) {
                            prop_assert!(heard.insert(*event) || is_put_back, "{event} is told twice");
                        }
                        let all = present.events.iter().all(|(_, event)| heard.contains(event));
                        prop_assert!(all, "something is skipped");
                        at = (ours.present().unwrap(), present.newest());
                        is_put_back = false;
                    }
                }
            }
        }
    }
}
