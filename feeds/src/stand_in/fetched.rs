//! Books that begin with a REST request: differences come by the socket, and a snapshot is answered for this place of the
//! recording. Before the recording's own snapshot there is none to give: the request waits for it.

use serde_json::value::RawValue;

use super::mirror::{Mirror, Shelf};
use super::{Said, WAITING_MAX};

/// Differences that are kept of a book while it has no snapshot.
const BUFFERED_MAX: usize = 10_000;

/// What changes between two places of a book.
#[derive(Debug, Default)]
pub(super) struct Difference<'a> {
    /// The number after the one that it continues.
    pub(super) first: u64,
    pub(super) last: u64,
    /// When the venue made it, as JSON.
    pub(super) made: &'a str,
    pub(super) changes: Vec<Change<'a>>,
}

/// A level that is set or removed.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) number: u64,
    pub(super) is_bid: bool,
    pub(super) price: &'a RawValue,
    pub(super) size: &'a RawValue,
}

/// A snapshot, as it was recorded.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) number: u64,
    /// When the venue made it, as JSON.
    pub(super) made: &'a str,
    pub(super) bids: Vec<[&'a RawValue; 2]>,
    pub(super) asks: Vec<[&'a RawValue; 2]>,
}

/// A book at the place reached.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) mirror: Mirror,
    /// The number of the last change.
    pub(super) last: u64,
    pub(super) made: String,
    /// The snapshot may lack a part of the change that it ends with.
    lacks_last: bool,
    buffered: Vec<String>,
}

/// How a venue writes them.
#[derive(Debug)]
pub(super) struct Form {
    /// Levels a side that differences follow.
    pub(super) depth: usize,
    /// Is the difference that ends where a snapshot does applied to it?
    pub(super) overlaps: bool,
    pub(super) difference: for<'a> fn(&'a str) -> Option<Difference<'a>>,
    /// Answers a request for a book of that name, by that path.
    pub(super) answer: fn(&Book, name: &str, path: &str) -> String,
}

/// The books of one venue, by its names.
#[derive(Debug)]
pub(super) struct Fetched {
    form: Form,
    books: Shelf<Book>,
    /// Request, name and path.
    waiting: Vec<(u64, String, String)>,
}

/// Changes of both sides of one frame, which all have its number.
pub(super) fn changes<'a>(number: u64, bids: &[[&'a RawValue; 2]], asks: &[[&'a RawValue; 2]]) -> Vec<Change<'a>> {
    let side = |is_bid, levels: &[[&'a RawValue; 2]]| {
        let change = move |[price, size]: &[&'a RawValue; 2]| Change { number, is_bid, price, size };
        levels.iter().map(change).collect::<Vec<_>>()
    };
    let mut all = side(true, bids);
    all.append(&mut side(false, asks));
    all
}

impl Book {
    /// A part of it may be known already.
    fn apply(&mut self, difference: &Difference<'_>, depth: usize) {
        let known = if self.lacks_last { self.last.saturating_sub(1) } else { self.last };
        if difference.last <= known {
            return;
        }
        for change in difference.changes.iter().filter(|change| change.number > known) {
            self.mirror.set(change.is_bid, change.price, change.size);
        }
        self.mirror.cut(depth);
        (self.last, self.lacks_last) = (difference.last, false);
        self.made = difference.made.to_owned();
    }
}

impl Fetched {
    pub(super) fn new(form: Form) -> Self {
        Self { form, books: Shelf::default(), waiting: Vec::new() }
    }

    /// There is such an instrument.
    pub(super) fn know(&mut self, name: &str) {
        self.books.keep(name);
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.books.get(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.books.names()
    }

    /// A difference was played.
    pub(super) fn take_in(&mut self, name: &str, raw: &str) {
        let Some(difference) = (self.form.difference)(raw) else { return };
        let Some(book) = self.books.keep(name) else { return };
        if book.mirror.is_whole {
            book.apply(&difference, self.form.depth);
        } else if book.buffered.len() < BUFFERED_MAX {
            book.buffered.push(raw.to_owned());
        }
    }

    /// A snapshot is in the recording here: those who waited for it are answered. One that the differences do not continue
    /// is none.
    pub(super) fn begin(&mut self, name: &str, snapshot: &Snapshot<'_>, said: &mut Vec<Said>) {
        let Form { depth, overlaps, difference, answer } = self.form;
        let Some(book) = self.books.keep(name) else { return };
        let first = book.buffered.first().and_then(|raw| difference(raw));
        let has_hole = first.is_some_and(|first| first.first > snapshot.number.saturating_add(1));
        if has_hole || (book.mirror.is_whole && book.last >= snapshot.number) {
            return;
        }
        book.mirror.begin();
        book.mirror.set_pairs(&snapshot.bids, &snapshot.asks);
        (book.last, book.made, book.lacks_last) = (snapshot.number, snapshot.made.to_owned(), overlaps);
        for raw in std::mem::take(&mut book.buffered) {
            if let Some(difference) = difference(&raw) {
                book.apply(&difference, depth);
            }
        }
        let book = &*book;
        self.waiting.retain(|(request, wanted, path)| {
            if *wanted == name {
                said.push(Said::Answer { request: *request, status: 200, body: answer(book, name, path) });
            }
            *wanted != name
        });
    }

    /// Answers a request, now or later, for an instrument that is known. False where too many wait.
    pub(super) fn ask(&mut self, request: u64, name: &str, path: &str, said: &mut Vec<Said>) -> bool {
        match self.books.get(name).filter(|book| book.mirror.is_whole) {
            Some(book) => {
                let body = (self.form.answer)(book, name, path);
                said.push(Said::Answer { request, status: 200, body });
            }
            None if self.waiting.len() >= WAITING_MAX => return false,
            None => self.waiting.push((request, name.to_owned(), path.to_owned())),
        }
        true
    }

    /// What is played begins anew.
    pub(super) fn begin_again(&mut self) {
        self.books.clear();
    }
}
