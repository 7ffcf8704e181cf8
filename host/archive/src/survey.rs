//! Every file, byte by byte, against what the log says of it; and what a repair would make of it.
//!
//! Nothing is changed here. For each partition it is found out which offsets there should be, which are in files that are as they
//! were written, which can be taken out of damaged ones, which are in the log, and so which are lost.

use crate::adopt::list_files;
use crate::decode::OpenFile;
use crate::error::{ArchiveError, io_error};
use crate::flush::describe;
use crate::inspect::{Looked, Source, look_at};
use crate::place::{self, DATA_DIR};
use crate::schema;
use nodata_log::fs::Fs;
use nodata_log::{
    ArchiveFile, Name, Offset, PartitionArchive, Ranges, Salvage, TimestampUs, Topic, TopicConfig, TopicId, Tp,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the partition.
    pub place: String,
    pub what: String,
    /// What a repair does about it.
    pub repair: String,
    /// Events that are lost by it.
    pub lost: Vec<Loss>,
    /// What is not known any more because of it.
    pub unknown: Vec<String>,
}

/// Offsets of a partition whose events cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub topic: String,
    pub partition: u32,
    pub offsets: Range<Offset>,
    pub kind: LossKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Each of them was an event.
    Lost,
    /// A deployment put them there; it has to do it again, and puts them elsewhere.
    Undone,
    /// Some of them may have been events. None of them is given to another one.
    Possible,
}

/// Something that a person may want to know and that is no damage: a place, and what is there.
pub type Note = (String, String);

/// Everything there is.
pub struct Survey {
    pub(crate) salvage: Salvage,
    pub(crate) partitions: Vec<PartitionPlan>,
    /// Files that are moved out of the folder that others read.
    pub(crate) moved: Vec<String>,
    /// Files that are copied before anything is written in their place.
    pub(crate) copied: Vec<String>,
    pub findings: Vec<Finding>,
    pub notes: Vec<Note>,
    pub files: u64,
    pub file_bytes: u64,
    pub events: u64,
    pub topics: u64,
    /// Bytes that a repair writes, about.
    pub bytes_needed: u64,
}

/// A partition as it is to be.
pub(crate) struct PartitionPlan {
    pub(crate) topic: Topic,
    pub(crate) tp: Tp,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) lost: Ranges,
    pub(crate) files: Vec<PlannedFile>,
    /// Offsets of the log that are in no file.
    pub(crate) from_log: Ranges,
}

pub(crate) enum PlannedFile {
    As(ArchiveFile),
    /// Written anew, under the name of `base`.
    Again {
        base: Offset,
        offsets: Ranges,
        from_file: Ranges,
        source: Option<Source>,
    },
}

/// A file that the log does not know, or not so.
struct Stranger {
    path: String,
    bytes: u64,
    opened: OpenFile,
    offsets: Ranges,
}

impl Survey {
    /// Whether everything is as it should be.
    pub fn is_well(&self) -> bool {
        self.findings.is_empty()
    }

    /// All losses.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.findings.iter().flat_map(|finding| &finding.lost)
    }

    /// The files that are kept in another place when it is repaired.
    pub fn keeps(&self) -> impl Iterator<Item = &str> {
        self.copied.iter().chain(&self.moved).map(String::as_str)
    }

    /// The log.
    pub fn salvage(&self) -> &Salvage {
        &self.salvage
    }
}

/// Looks at all of a store; `seen` is told after each file, with how many there are.
pub fn survey(
    fs: &dyn Fs,
    mut salvage: Salvage,
    now_us: TimestampUs,
    mut seen: impl FnMut(u64, u64),
) -> Result<Survey, ArchiveError> {
    let mut found = BTreeMap::new();
    list_files(fs, DATA_DIR, &mut found)?;
    let count = found.len() as u64;
    let mut done = 0;
    let mut notes = Vec::new();
    let mut findings: Vec<Finding> = Vec::new();
    let mut moved = Vec::new();
    let mut strangers = find_strangers(fs, &salvage, &found, &mut notes, &mut findings, &mut moved)?;
    adopt_topics(&mut salvage, &mut strangers, now_us, &mut findings);

    let mut survey = Survey {
        partitions: Vec::new(),
        moved,
        copied: salvage.damaged().map(str::to_owned).collect(),
        findings: Vec::new(),
        notes,
        files: 0,
        file_bytes: 0,
        events: 0,
        topics: salvage.topics().len() as u64,
        bytes_needed: 1 << 20,
        salvage,
    };
    for log in survey.salvage.findings() {
        survey.findings.push(Finding {
            place: log.place.clone(),
            what: log.what.clone(),
            repair: "what is damaged is kept, what can be read is put into files, and the log begins anew".to_owned(),
            lost: Vec::new(),
            unknown: log.unknown.clone(),
        });
    }
    survey.findings.append(&mut findings);
    for topic in survey.salvage.topics() {
        for tp in topic.partitions() {
            let strangers = strangers.remove(&tp).unwrap_or_default();
            survey.partition(fs, &topic, tp, &found, strangers, |files| {
                done += files;
                seen(done, count);
            })?;
        }
    }
    // What is left belongs to topics that are gone.
    for stranger in strangers.into_values().flatten() {
        survey.notes.push((stranger.path, "its topic was deleted; the next start removes it".to_owned()));
    }
    let sizes = survey.copied.iter().chain(&survey.moved).filter_map(|path| fs.open(path).ok()?.size().ok());
    survey.bytes_needed += sizes.sum::<u64>();
    Ok(survey)
}

/// Opens every file that the log does not know.
fn find_strangers(
    fs: &dyn Fs,
    salvage: &Salvage,
    found: &BTreeMap<String, u64>,
    notes: &mut Vec<Note>,
    findings: &mut Vec<Finding>,
    moved: &mut Vec<String>,
) -> Result<HashMap<Tp, Vec<Stranger>>, ArchiveError> {
    let store = schema::store_text(&salvage.store_id());
    let mut strangers: HashMap<Tp, Vec<Stranger>> = HashMap::new();
    let known: HashSet<String> = salvage
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions().map(move |tp| (topic, tp)))
        .flat_map(|(topic, tp)| {
            let files = salvage.archive(tp).files.into_values();
            files.map(move |file| place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base))
        })
        .collect();
    for (path, &bytes) in found.iter().filter(|(path, _)| !known.contains(*path)) {
        let file = fs.open(path).map_err(io_error("open", path))?;
        let opened = OpenFile::open_strictly(file, bytes).and_then(|opened| {
            let mut offsets = Ranges::default();
            for at in 0..opened.row_groups() as usize {
                offsets.extend(&opened.group_offsets(at, true)?);
            }
            Ok((opened, offsets))
        });
        match opened {
            Ok((opened, offsets)) if opened.origin().store == store => {
                let origin = opened.origin();
                let tp = Tp { topic: TopicId(origin.topic_id), partition: origin.partition };
                strangers.entry(tp).or_default().push(Stranger { path: path.clone(), bytes, opened, offsets });
            }
            Err(error) if is_name_of_ours(path) => {
                moved.push(path.clone());
                findings.push(Finding {
                    place: path.clone(),
                    what: format!("it cannot be read: {error}"),
                    repair: "it is kept".to_owned(),
                    lost: Vec::new(),
                    unknown: Vec::new(),
                });
            }
            _ => {
                let what = "it is not part of the store; whoever lists the folder reads it too";
                notes.push((path.clone(), what.to_owned()));
            }
        }
    }
    for files in strangers.values_mut() {
        // Of two versions of one file the longer one comes first.
        files.sort_by_key(|stranger| {
            (stranger.opened.offsets().start, std::cmp::Reverse(stranger.opened.offsets().end))
        });
    }
    Ok(strangers)
}

/// Nobody else writes a file of such a name there.
fn is_name_of_ours(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let name = parts.next().and_then(|name| name.strip_suffix(".parquet"));
    name.is_some_and(|name| name.len() == 20 && name.bytes().all(|digit| digit.is_ascii_digit()))
        && ["date=", "partition=", "topic="].iter().all(|kind| parts.next().is_some_and(|part| part.starts_with(kind)))
}

/// Topics that the log does not know any more, from what their files say, or from nothing but their events.
fn adopt_topics(
    salvage: &mut Salvage,
    strangers: &mut HashMap<Tp, Vec<Stranger>>,
    now_us: TimestampUs,
    findings: &mut Vec<Finding>,
) {
    if salvage.is_exact() {
        return;
    }
    let mut partitions: BTreeMap<TopicId, u32> = BTreeMap::new();
    for tp in strangers.keys().copied().chain(salvage.orphans()) {
        let wanted = partitions.entry(tp.topic).or_default();
        *wanted = (*wanted).max(tp.partition + 1);
    }
    for (id, partitions) in partitions {
        if let Some(topic) = salvage.topic(id) {
            if topic.config.partitions < partitions {
                let config = TopicConfig { partitions, ..topic.config.clone() };
                let topic = Topic { config, ..topic.clone() };
                salvage.adopt_topic(topic);
            }
            continue;
        }
        if !salvage.may_have_been(id) {
            continue;
        }
        let origin = strangers.iter().find(|(tp, _)| tp.topic == id).and_then(|(_, files)| files.first());
        let origin = origin.map(|file| file.opened.origin());
        let name = origin.and_then(|origin| Name::new(&origin.topic).ok());
        let known_by = if name.is_some() { "its files" } else { "its events in the log" };
        let Some(name) = name.or_else(|| Name::new(&format!("recovered-{}", id.0)).ok()) else { continue };
        let values = origin.map(|origin| origin.values).unwrap_or_default();
        findings.push(Finding {
            place: format!("topic `{name}`"),
            what: format!("only {known_by} are left of it"),
            repair: format!("it is made again with {partitions} partitions"),
            lost: Vec::new(),
            unknown: vec![format!("whether topic `{name}` had more partitions, its retention, and its largest event")],
        });
        let columns = origin.map(|origin| origin.columns.clone()).unwrap_or_default();
        let config = TopicConfig { partitions, values, columns, ..TopicConfig::default() };
        salvage.adopt_topic(Topic { id, name, config, created_us: now_us });
    }
}

impl Survey {
    fn partition(
        &mut self,
        fs: &dyn Fs,
        topic: &Topic,
        tp: Tp,
        found: &BTreeMap<String, u64>,
        strangers: Vec<Stranger>,
        mut seen: impl FnMut(u64),
    ) -> Result<(), ArchiveError> {
        let known = self.salvage.archive(tp);
        let in_log = self.salvage.in_log(tp);
        let mut planned = Vec::new();
        // Findings about files, to be told what is lost in them when that is known.
        let mut damaged: Vec<(Range<Offset>, usize)> = Vec::new();
        let mut content = Ranges::default();
        for file in known.files.values() {
            let path = place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base);
            seen(1);
            let looked = match found.get(&path) {
                Some(_) => look_at(fs, &path, file, &self.salvage, topic)?,
                None => Looked::Damaged { what: "it is missing".to_owned(), source: None, offsets: Ranges::default() },
            };
            match looked {
                Looked::Whole { file, offsets, is_ahead } => {
                    content.extend(&offsets);
                    self.count(&file);
                    if is_ahead {
                        self.notes.push((path, "it has grown; the next start takes that over".to_owned()));
                    }
                    planned.push(PlannedFile::As(file));
                }
                Looked::Damaged { what, source, offsets } => {
                    let range = file.base..file.end.max(offsets.bounds().map_or(0, |bounds| bounds.end));
                    damaged.push((range.clone(), self.findings.len()));
                    let mut all = in_log.within(range);
                    all.extend(&offsets);
                    if source.is_some() || found.contains_key(&path) {
                        self.copied.push(path.clone());
                    }
                    let repair = match (offsets.is_empty(), all.is_empty()) {
                        (false, _) => "it is kept, and what can be read of it is written anew",
                        (true, false) => "what the log has of it is written anew",
                        (true, true) => "what is left of it is kept",
                    };
                    self.findings.push(Finding {
                        place: path.clone(),
                        what,
                        repair: repair.to_owned(),
                        lost: Vec::new(),
                        unknown: Vec::new(),
                    });
                    if all.is_empty() {
                        self.copied.retain(|copied| *copied != path);
                        self.moved.extend(found.contains_key(&path).then_some(path));
                    } else {
                        self.bytes_needed += 2 * file.bytes.max(file.payload_bytes);
                        content.extend(&all);
                        planned.push(PlannedFile::Again { base: file.base, offsets: all, from_file: offsets, source });
                    }
                }
            }
        }
        for stranger in strangers {
            seen(1);
            self.take_in(topic, tp, &known, stranger, &mut content, &mut planned);
        }

        let end = content.bounds().map_or(0, |bounds| bounds.end).max(self.salvage.end(tp)).max(known.end);
        let start = if self.salvage.is_exact() || known != PartitionArchive::default() {
            known.start
        } else {
            // Nobody knows what was before; what is there is the beginning.
            let first = [&content, &in_log].into_iter().filter_map(|offsets| Some(offsets.bounds()?.start)).min();
            first.unwrap_or(end)
        };
        let mut from_log = in_log.within(start..Offset::MAX);
        from_log.remove_all(&content);
        content.extend(&from_log);
        let mut missing = content.missing_from(start..end);
        missing.remove_all(&known.lost);
        self.tell_losses(topic, tp, missing.clone(), damaged);
        let reserved = self.salvage.reserved(tp);
        if reserved > 0 {
            self.tell(
                topic,
                tp,
                "what a hole in the log held of it is not known".to_owned(),
                end..end + reserved,
                LossKind::Possible,
            );
        }
        let mut lost = known.lost.clone();
        lost.extend(&missing);
        lost.insert(end..end + reserved);
        lost.remove_all(&content);
        lost.remove(0..start);
        let end = end + reserved;
        self.bytes_needed += if from_log.is_empty() { 0 } else { self.salvage.log_bytes() / 4 };
        self.partitions.push(PartitionPlan { topic: topic.clone(), tp, start, end, lost, files: planned, from_log });
        Ok(())
    }

    fn count(&mut self, file: &ArchiveFile) {
        self.files += 1;
        self.file_bytes += file.bytes;
        self.events += file.rows;
    }

    /// A file that the log does not know may hold what is missing elsewhere.
    fn take_in(
        &mut self,
        topic: &Topic,
        tp: Tp,
        known: &PartitionArchive,
        stranger: Stranger,
        content: &mut Ranges,
        planned: &mut Vec<PlannedFile>,
    ) {
        let Stranger { path, bytes, opened, offsets } = stranger;
        let Some(range) = offsets.bounds() else { return };
        let described = opened.footer_checksum().ok().and_then(|crc| describe(&opened, crc, opened.raw_bytes()).ok());
        let name = described
            .as_ref()
            .map(|file| place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base));
        let is_in_place = name.as_ref() == Some(&path);
        if range.end <= known.start {
            self.notes.push((path, "its events were removed; the next start removes it".to_owned()));
            return;
        }
        if content.meets(range.clone()) {
            // Next to a file that holds the same, nobody could tell which is right: one is enough.
            self.moved.push(path.clone());
            self.findings.push(Finding {
                place: path,
                what: format!("it holds offsets {} to {}, which other files hold too", range.start, range.end),
                repair: "it is kept elsewhere".to_owned(),
                lost: Vec::new(),
                unknown: Vec::new(),
            });
            return;
        }
        content.extend(&offsets);
        match described.filter(|_| is_in_place && opened.check_page_indexes().is_ok()) {
            Some(file) => {
                let is_ahead = range.start >= known.end && range.end <= self.salvage.end(tp);
                self.count(&file);
                if is_ahead {
                    self.notes.push((path, "the log does not know it yet; the next start takes it over".to_owned()));
                } else {
                    let what =
                        format!("it holds offsets {} to {}, and the log does not know it", range.start, range.end);
                    let repair = "it is made part of the store".to_owned();
                    self.findings.push(Finding { place: path, what, repair, lost: Vec::new(), unknown: Vec::new() });
                }
                planned.push(PlannedFile::As(file));
            }
            None => {
                self.bytes_needed += 2 * bytes;
                let (kept, what) = if is_in_place {
                    (&mut self.copied, "its page indexes cannot be read".to_owned())
                } else {
                    let what =
                        format!("it holds offsets {} to {}, and is not where it should be", range.start, range.end);
                    (&mut self.moved, what)
                };
                kept.push(path.clone());
                let repair = "it is kept, and what it holds is written anew where it belongs".to_owned();
                self.findings.push(Finding {
                    place: path.clone(),
                    what,
                    repair,
                    lost: Vec::new(),
                    unknown: Vec::new(),
                });
                let groups = (0..opened.row_groups() as usize).collect();
                let source = Some(Source { path, bytes, groups });
                let base = opened.origin().base_offset;
                planned.push(PlannedFile::Again { base, offsets: offsets.clone(), from_file: offsets, source });
            }
        }
    }

    fn tell_losses(&mut self, topic: &Topic, tp: Tp, mut missing: Ranges, damaged: Vec<(Range<Offset>, usize)>) {
        for (range, finding) in damaged {
            for offsets in missing.within(range.clone()).iter() {
                let (topic, partition) = (topic.name.to_string(), tp.partition);
                self.findings[finding].lost.push(Loss { topic, partition, offsets, kind: LossKind::Lost });
            }
            missing.remove(range);
        }
        let undone = self.salvage.undone(tp);
        let mut twice = undone.clone();
        twice.remove_all(&missing);
        for offsets in twice.iter() {
            let what = format!(
                "offsets {} to {} are in files, and the deployment that put them there does it again",
                offsets.start, offsets.end
            );
            self.findings.push(Finding {
                place: format!("topic `{}`, partition {}", topic.name, tp.partition),
                what,
                repair: "they stay: whoever reads files has seen them".to_owned(),
                lost: Vec::new(),
                unknown: vec!["which of these events will be there twice".to_owned()],
            });
        }
        for range in missing.clone().iter() {
            for offsets in undone.within(range).iter() {
                missing.remove(offsets.clone());
                let what = "a deployment put these events there, and its position is not known any more".to_owned();
                self.tell(topic, tp, what, offsets, LossKind::Undone);
            }
        }
        for offsets in missing.iter() {
            let what = format!("offsets {} to {} are in no file and not in the log", offsets.start, offsets.end);
            self.tell(topic, tp, what, offsets, LossKind::Lost);
        }
    }

    fn tell(&mut self, topic: &Topic, tp: Tp, what: String, offsets: Range<Offset>, kind: LossKind) {
        let (name, partition) = (topic.name.to_string(), tp.partition);
        self.findings.push(Finding {
            place: format!("topic `{name}`, partition {partition}"),
            what,
            repair: "reading passes over these offsets, and nobody else is given them".to_owned(),
            lost: vec![Loss { topic: name, partition, offsets, kind }],
            unknown: Vec::new(),
        });
    }
}
