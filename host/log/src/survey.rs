//! Every frame of a log that can be read, and the holes between them.
//!
//! A start reads the log from its beginning and refuses at the first thing that is wrong. This goes on behind it: where a frame
//! cannot be read, the next one is looked for. A frame says where it belongs and its checksum begins with a number that is its
//! segment's own, so what is found is a frame of this place or it is nothing.
//!
//! What a start calls a torn tail is not a hole here either: bytes that nobody was told are safe.

use crate::error::OpenError;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameError, Lsn};
use crate::fs::{Fs, read_around};
use crate::limits::SEGMENT_BYTES;
use crate::recovery::io_error;
use crate::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentStart, StoreId, WAL_DIR, segment_number, segment_path,
};
use bytes::Bytes;
use std::io;

/// A file that was named as a segment.
pub(crate) struct SurveyedSegment {
    pub(crate) number: u64,
    pub(crate) path: String,
    /// Of the file.
    pub(crate) bytes: u64,
    kind: Kind,
    frames: Vec<FoundFrame>,
    /// Why there is no frame behind the last one that comes without a gap.
    stopped: FrameError,
    /// Why there is none behind the last one.
    ended: FrameError,
}

enum Kind {
    Segment(SegmentHeader),
    /// Named, and not written to yet.
    Begun,
    Unreadable(&'static str),
}

#[derive(Clone, Copy)]
struct FoundFrame {
    lsn: Lsn,
    bytes: u64,
    durable_lsn: Lsn,
    is_whole: bool,
}

/// Acknowledged bytes that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
    /// Bytes that are missing, at most: more than lie between the two where files have no known place.
    pub(crate) bytes: u64,
    pub(crate) place: String,
    pub(crate) what: String,
    /// Files that are there and hold it.
    pub(crate) files: Vec<String>,
}

/// What comes next in the log.
pub(crate) enum Step {
    Frame { segment: usize, lsn: Lsn },
    Hole(Hole),
}

pub(crate) struct Survey {
    pub(crate) segments: Vec<SurveyedSegment>,
}

/// The order of the log.
pub(crate) struct Walk {
    pub(crate) steps: Vec<Step>,
    /// Where the log ends.
    pub(crate) end_lsn: Lsn,
    /// Segments that are wrong and hold nothing: file, and what is wrong.
    pub(crate) leftovers: Vec<(String, String)>,
}

impl SurveyedSegment {
    pub(crate) fn header(&self) -> Option<&SegmentHeader> {
        match &self.kind {
            Kind::Segment(header) => Some(header),
            _ => None,
        }
    }

    fn why(&self) -> &'static str {
        match self.kind {
            Kind::Segment(_) => "it does not follow the one before it",
            Kind::Begun => "it is empty, but there is a later one",
            Kind::Unreadable(why) => why,
        }
    }

    pub(crate) fn read(&self, fs: &dyn Fs) -> Result<Bytes, OpenError> {
        let file = fs.open(&self.path).map_err(io_error("open", &self.path))?;
        Ok(read_around(&*file).map_err(io_error("read", &self.path))?.into())
    }
}

impl Survey {
    pub(crate) fn read(fs: &dyn Fs, store_id: &StoreId) -> Result<Self, OpenError> {
        let mut entries = match fs.list(WAL_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries.map_err(io_error("list", WAL_DIR))?,
        };
        entries.retain(|entry| segment_number(&entry.name).is_some());
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut segments = Vec::new();
        for number in entries.iter().filter_map(|entry| segment_number(&entry.name)) {
            let path = segment_path(number);
            let file = fs.open(&path).map_err(io_error("open", &path))?;
            let bytes = Bytes::from(read_around(&*file).map_err(io_error("read", &path))?);
            let kind = match SegmentHeader::decode(&bytes, number, store_id) {
                SegmentStart::Header(header) => Kind::Segment(header),
                SegmentStart::Unused | SegmentStart::Other => Kind::Begun,
                SegmentStart::Damaged(_) if bytes.is_empty() || is_short_and_zero(&bytes) => Kind::Begun,
                // Whoever has two stores has mixed them up; that is not for a program to sort out.
                SegmentStart::Foreign(what) => {
                    return Err(OpenError::Damaged {
                        file: path,
                        from: 0,
                        to: SEGMENT_HEADER_BYTES,
                        what: what.to_owned(),
                    });
                }
                SegmentStart::Damaged(what) => Kind::Unreadable(what),
            };
            let (frames, stopped, ended) = match &kind {
                Kind::Segment(header) => find_frames(&bytes, header, &path)?,
                _ => (Vec::new(), FrameError::Magic, FrameError::Magic),
            };
            segments.push(SurveyedSegment { number, path, bytes: bytes.len() as u64, kind, frames, stopped, ended });
        }
        Ok(Self { segments })
    }

    /// Everything from `start_lsn` on, in order; `durable_lsn` is what others know to be durable.
    pub(crate) fn walk(&self, start_lsn: Lsn, durable_lsn: Lsn) -> Walk {
        let readable: Vec<usize> = (0..self.segments.len())
            .filter(|at| self.segments[*at].header().is_some_and(|header| header.base_lsn >= start_lsn))
            .collect();
        let headers = self.segments.iter().filter_map(|segment| Some(segment.header()?.prev_end_lsn));
        let frames = self.segments.iter().flat_map(|segment| segment.frames.iter().map(|frame| frame.durable_lsn));
        let durable_lsn = headers.chain(frames).fold(durable_lsn, Lsn::max);
        let mut walk = Walk { steps: Vec::new(), end_lsn: start_lsn, leftovers: Vec::new() };

        // What lies before the first one that can be read.
        let first = readable.first().map(|at| &self.segments[*at]);
        let first_base = first.and_then(SurveyedSegment::header).map_or(Lsn::MAX, |header| header.base_lsn);
        for segment in
            self.segments.iter().take_while(|segment| first.is_none_or(|first| segment.number < first.number))
        {
            // A repair that was interrupted leaves files that it has kept elsewhere. What a crash brought back and can be read,
            // the next start removes.
            if segment.header().is_none() && first_base == start_lsn {
                walk.leftovers.push((segment.path.clone(), segment.why().to_owned()));
            }
        }
        for (nth, &at) in readable.iter().enumerate() {
            let segment = &self.segments[at];
            let Some(header) = segment.header() else { continue };
            let before = nth.checked_sub(1).map(|nth| readable[nth]);
            let expected = if before.is_none() { header.base_lsn } else { header.prev_end_lsn };
            if walk.end_lsn < expected && before.is_none_or(|before| self.segments[before].number + 1 != segment.number)
            {
                let hole = self.hole_between(before, Some(at), walk.end_lsn, expected);
                walk.steps.push(Step::Hole(hole));
            }
            walk.end_lsn = header.base_lsn;
            let next = readable.get(nth + 1).map(|next| &self.segments[*next]);
            self.walk_segment(at, next, durable_lsn, &mut walk);
        }
        self.walk_end(readable.last().copied(), durable_lsn, &mut walk);
        walk
    }

    fn walk_segment(&self, at: usize, next: Option<&SurveyedSegment>, durable_lsn: Lsn, walk: &mut Walk) {
        let segment = &self.segments[at];
        let Some(header) = segment.header() else { return };
        let next_header = next.and_then(SurveyedSegment::header);
        let limit = next_header.map_or(durable_lsn, |next| next.prev_end_lsn);
        for frame in &segment.frames {
            // Where the next segment says that this one ends, it ends.
            if next.is_some() && frame.lsn >= limit {
                break;
            }
            if walk.end_lsn < frame.lsn {
                // A gap behind everything that is durable is a torn tail, and nothing counts that lies behind it.
                if walk.end_lsn >= limit || frame.lsn > limit {
                    break;
                }
                walk.steps.push(Step::Hole(self.hole_in(at, header, walk.end_lsn, frame.lsn)));
                walk.end_lsn = frame.lsn;
            }
            // So is a frame that was written in part.
            if !frame.is_whole && frame.lsn >= durable_lsn {
                break;
            }
            walk.steps.push(Step::Frame { segment: at, lsn: frame.lsn });
            walk.end_lsn = frame.lsn + frame.bytes;
        }
        // What the next one says is missing at the end, unless there is a whole segment missing, which is said for all at once.
        let follows = next.is_some_and(|next| next.number == segment.number + 1);
        if follows && walk.end_lsn < limit {
            walk.steps.push(Step::Hole(self.hole_in(at, header, walk.end_lsn, limit)));
            walk.end_lsn = limit;
        }
    }

    /// What is missing behind the last segment that can be read.
    fn walk_end(&self, last: Option<usize>, durable_lsn: Lsn, walk: &mut Walk) {
        let number = last.map_or(0, |last| self.segments[last].number);
        let behind: Vec<&SurveyedSegment> = self.segments.iter().filter(|segment| segment.number > number).collect();
        let is_gone = behind.iter().any(|segment| matches!(segment.kind, Kind::Unreadable(_)))
            || behind.first().is_some_and(|first| first.number != number + 1)
            || behind.len() > 1;
        if is_gone {
            let to = walk.end_lsn.max(durable_lsn);
            walk.steps.push(Step::Hole(self.hole_between(last, None, walk.end_lsn, to)));
            walk.end_lsn = to;
            return;
        }
        let Some(at) = last else {
            if walk.end_lsn < durable_lsn {
                walk.steps.push(Step::Hole(self.hole_between(None, None, walk.end_lsn, durable_lsn)));
                walk.end_lsn = durable_lsn;
            }
            return;
        };
        let segment = &self.segments[at];
        let Some(header) = segment.header() else { return };
        let cut = header.bytes.saturating_sub(segment.bytes);
        // Where the log ends, what follows is no frame of this place. If one begins there, or could have, more was cut off.
        let is_last = segment.frames.last().is_none_or(|last| last.lsn + last.bytes == walk.end_lsn);
        let holds_more = !is_last || !matches!(segment.ended, FrameError::Magic | FrameError::Foreign);
        if walk.end_lsn < durable_lsn {
            let mut hole = self.hole_in(at, header, walk.end_lsn, durable_lsn);
            hole.bytes = hole.bytes.max(cut);
            walk.steps.push(Step::Hole(hole));
            walk.end_lsn = durable_lsn;
        } else if cut > 0 && holds_more {
            let mut hole = self.hole_in(at, header, walk.end_lsn, walk.end_lsn);
            hole.bytes = cut;
            hole.what = format!("it has {} bytes, it had {}", segment.bytes, header.bytes);
            walk.steps.push(Step::Hole(hole));
        } else if cut > 0 {
            let what =
                format!("it has {} bytes, it had {}; nothing was written to the rest", segment.bytes, header.bytes);
            walk.leftovers.push((segment.path.clone(), what));
        }
    }

    fn hole_in(&self, at: usize, header: &SegmentHeader, from: Lsn, to: Lsn) -> Hole {
        let segment = &self.segments[at];
        let position = |lsn: Lsn| SEGMENT_HEADER_BYTES + (lsn - header.base_lsn);
        let is_first = self.segments[at].frames.iter().take_while(|frame| frame.lsn < from).count()
            == contiguous(&segment.frames, header.base_lsn);
        let why = if is_first { segment.stopped.to_string() } else { FrameError::Magic.to_string() };
        Hole {
            from,
            to,
            bytes: to - from,
            place: segment.path.clone(),
            what: format!("bytes {} to {} cannot be read: {why}", position(from), position(to)),
            files: vec![segment.path.clone()],
        }
    }

    /// Whole segments are gone, or are not what they should be. What comes before them may be cut too.
    fn hole_between(&self, before: Option<usize>, behind: Option<usize>, from: Lsn, to: Lsn) -> Hole {
        let first = before.map(|at| self.segments[at].number);
        let last = behind.map(|at| self.segments[at].number);
        let between = |number: u64| first.is_none_or(|first| number > first) && last.is_none_or(|last| number < last);
        let there: Vec<&SurveyedSegment> = self
            .segments
            .iter()
            .filter(|segment| between(segment.number) && !matches!(segment.kind, Kind::Segment(_)))
            .collect();
        let from_number = first.map_or_else(|| there.first().map_or(0, |first| first.number), |first| first + 1);
        let to_number = last.or_else(|| there.last().map(|last| last.number + 1)).unwrap_or(from_number);
        let missing: Vec<u64> = (from_number..to_number)
            .filter(|number| self.segments.iter().all(|segment| segment.number != *number))
            .collect();
        let mut what: Vec<String> = there
            .iter()
            .filter(|segment| !(behind.is_none() && matches!(segment.kind, Kind::Begun)))
            .map(|segment| format!("{}: {}", segment.path, segment.why()))
            .collect();
        match missing.as_slice() {
            [] => {}
            [one] => what.push(format!("{} is missing", segment_path(*one))),
            [one, .., other] => what.push(format!("{} to {} are missing", segment_path(*one), segment_path(*other))),
        }
        if what.is_empty() {
            what.push("segments are missing".to_owned());
        }
        let bytes = there.iter().map(|segment| segment.bytes).sum::<u64>() + missing.len() as u64 * SEGMENT_BYTES;
        Hole {
            from,
            to,
            bytes: bytes.max(to - from),
            place: WAL_DIR.to_owned(),
            what: what.join("; "),
            files: there.iter().map(|segment| segment.path.clone()).collect(),
        }
    }
}

/// How many frames come without a gap.
fn contiguous(frames: &[FoundFrame], base_lsn: Lsn) -> usize {
    let mut lsn = base_lsn;
    let follows = |frame: &&FoundFrame| frame.lsn == std::mem::replace(&mut lsn, frame.lsn + frame.bytes);
    frames.iter().take_while(follows).count()
}

fn is_short_and_zero(bytes: &[u8]) -> bool {
    bytes.len() < SEGMENT_HEADER_BYTES as usize && bytes.iter().all(|byte| *byte == 0)
}

/// Every frame in a segment. Frames begin at multiples of 8 bytes.
fn find_frames(
    bytes: &Bytes,
    header: &SegmentHeader,
    path: &str,
) -> Result<(Vec<FoundFrame>, FrameError, FrameError), OpenError> {
    let mut frames = Vec::new();
    let (mut stopped, mut ended) = (None, None);
    let mut at = SEGMENT_HEADER_BYTES as usize;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        let lsn = header.base_lsn + (at as u64 - SEGMENT_HEADER_BYTES);
        match Frame::decode_around(&bytes.slice(at..), header.context, lsn) {
            Ok((frame, damaged)) => {
                let Frame { lsn, bytes, durable_lsn, .. } = frame;
                frames.push(FoundFrame { lsn, bytes, durable_lsn, is_whole: damaged.is_empty() });
                at += bytes as usize;
                ended = None;
            }
            Err(source @ FrameError::UnknownOp { .. }) => {
                return Err(OpenError::Newer { file: path.to_owned(), source });
            }
            Err(error) => {
                stopped.get_or_insert_with(|| error.clone());
                ended.get_or_insert(error);
                at += 8;
            }
        }
    }
    Ok((frames, stopped.unwrap_or(FrameError::Short), ended.unwrap_or(FrameError::Short)))
}
