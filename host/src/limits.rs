//! Every bound of the host in one place: why this number, and what happens at it. The bounds of the log are in
//! `nodata_log::limits`, those of a call into a component in `nodata_runtime::limits`.

use std::time::Duration;

// The door.

/// Bytes of HTTP/2 flow control: what a stream, and a connection, may send before it is read. With the 64 KiB that HTTP/2 starts
/// with, events of 1 KiB lose a quarter of their speed.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Streams of one connection. The client waits for one to end.
pub const STREAMS_MAX: u32 = 1024;

/// Largest message: a batch of 64 MiB with what is around it. A larger one is refused with `out of range` before it is read.
pub const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// A connection that is silent this long is asked, and closed when it stays silent as long again.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long a request waits for room in the log before it is refused with `NO_ROOM`, which tells the client to slow down.
pub const ROOM_WAIT: Duration = Duration::from_secs(10);

/// Bytes, and requests, of one stream that are appended together when they are there already: enough that the cost of an append
/// disappears, little enough that the first of them does not wait for the last.
pub const COALESCE_BYTES: u64 = 1 << 20;
pub const COALESCE_REQUESTS: usize = 4096;

/// Appends of one stream that wait to be acknowledged. At the bound the stream is not read: with the bound above this is what
/// a client that never reads its answers can hold.
pub const UNANSWERED_APPENDS: usize = 64;

/// Answers of one stream that wait for HTTP/2.
pub const ANSWERS: usize = 4;

/// A request larger than this is decoded on a thread that may block: at 2 GB/s it takes half a millisecond, which the requests
/// of others should not wait for.
pub const LARGE_BYTES: usize = 1 << 20;

/// Bytes of one answer to a reader who did not ask for another size, and what one may ask for.
pub const FETCH_BYTES: u64 = 1 << 20;
pub const FETCH_BYTES_MAX: u64 = 16 << 20;

/// How long one fetch may wait for events. It answers without events then.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// Bytes of one message to a tail: large enough that its overhead does not matter, small enough that two can wait.
pub const TAIL_BYTES: u64 = 512 << 10;

/// Messages that are ready for a tail: one is being sent while the next is read. At the bound the tail is not read for.
pub const TAIL_MESSAGES: usize = 2;

/// Changes that wait for a watcher. One that falls behind gets the newest ends and misses those between.
pub const WATCH_MESSAGES: usize = 16;

/// Lines of a deployment's log that wait for who follows it.
pub const LOG_MESSAGES: usize = 4;

/// How often a follower of a log looks for lines that were dropped.
pub const LOG_LOOK: Duration = Duration::from_secs(1);

// Components.

/// Digits of a digest that are enough to name it.
pub const DIGEST_DIGITS_MIN: usize = 6;

/// Components that are being taken at once: each may have 64 MiB in memory, from its first byte until it is kept.
pub const INTAKES_MAX: usize = 8;

/// How long one more waits before it is refused with `TOO_MANY_AT_ONCE`.
pub const INTAKE_WAIT: Duration = Duration::from_secs(10);

/// How long an upload may stand still. It holds a place.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// Until there is a connection to a registry of images, and until it answers and goes on answering.
pub const IMAGE_CONNECT: Duration = Duration::from_secs(5);
pub const IMAGE_IDLE: Duration = Duration::from_secs(15);

/// How long a registry may take for the manifest of an image, and for its component: 64 MiB at 1 Mbit/s.
pub const IMAGE_WALL: Duration = Duration::from_secs(600);

/// Bytes of the manifest of an image: what registries take at most. Of the answer with a token.
pub const IMAGE_MANIFEST_BYTES_MAX: usize = 4 << 20;
pub const IMAGE_TOKEN_BYTES_MAX: usize = 64 << 10;

/// Redirects of one request to a registry.
pub const IMAGE_REDIRECTS_MAX: usize = 5;

/// Bytes of a signature of minisign: its comments are the longest in it.
pub const SIGNATURE_BYTES_MAX: usize = 16 << 10;

/// How long the program of an operator may think about an image, and what is shown of what it says at its end.
pub const VERIFY_IMAGE_WALL: Duration = Duration::from_secs(60);
pub const VERIFY_IMAGE_SAID_BYTES: usize = 4 << 10;
pub const VERIFY_IMAGE_LINES: usize = 5;

/// Stages of one that wait for whoever asked. At the bound they are passed over: only the newest counts.
pub const PROGRESS_MESSAGES: usize = 4;

/// Bytes of the label of a version.
pub const LABEL_BYTES_MAX: usize = 64;

/// Bytes of what a client says about who uploads a component.
pub const UPLOADED_BY_BYTES_MAX: usize = 200;

// Deployments.

/// Longest name of a deployment: `<name>.dlq` and the like must be topic names.
pub const DEPLOYMENT_NAME_BYTES_MAX: usize = 128;

/// The configuration of a deployment, keys and values. It is read at every start of an instance.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Ports of a deployment that are wired to topics.
pub const PORTS_MAX: usize = 64;

/// Secrets that a deployment is granted. All are given to each of its instances.
pub const SECRETS_GRANTED_MAX: usize = 100;

/// HTTP grants of a deployment. Each request is compared with them.
pub const HTTP_GRANTS_MAX: usize = 100;

/// Bytes of input of one call.
pub const INPUT_BYTES: u64 = 1 << 20;

/// Events of the first call of a task: a component that needs 10 ms for each is still within its deadline.
pub const CALL_EVENTS_FIRST: usize = 128;

/// Most events of a call. More would not make it cheaper, see `benches/transform.rs` of the runtime.
pub const CALL_EVENTS_MAX: usize = 8192;

/// A call that is quicker gets more events next time, one that is slower gets fewer.
pub const CALL_QUICK: Duration = Duration::from_millis(20);
pub const CALL_SLOW: Duration = Duration::from_millis(200);

/// The same for a sink. It waits for its receiver, which takes about as long for a few events as for many, so few would only make it
/// slow. A call that runs into its end is a call that failed, and this is far from it.
pub const SINK_CALL_QUICK: Duration = Duration::from_secs(1);
pub const SINK_CALL_SLOW: Duration = Duration::from_secs(10);

/// Commits of one task that are on their way to the disk while its next call runs. At the bound the task waits.
pub const COMMITS_IN_FLIGHT: usize = 4;

/// Waits between tries of a batch that failed with a transient error: the first, doubled each time, up to the second.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often a component ticks whose deployment does not say it, and at most: a tick is a call and, when it does something, a
/// commit for each partition.
pub const TICK_US: u64 = 1_000_000;
pub const TICK_US_MIN: u64 = 10_000;

/// How often a tick is tried, each time on a fresh instance, that fails otherwise than by asking to be tried again. Then it is left out.
pub const TICK_TRIES: u32 = 2;

/// Bytes of the key of a group: with what is around it, it is a key of a state table.
pub const GROUP_KEY_BYTES_MAX: usize = 4000;

/// Windows that are closed with one call and one commit.
pub const CLOSE_GROUPS_MAX: usize = 1024;

/// Windows that an event may be in: each costs what an event costs.
pub const OVERLAP_MAX: i64 = 100;

/// Groups of one page of an aggregate.
pub const GROUPS_PAGE_MAX: usize = 1000;

/// Bytes of accumulators that are read for a page from each partition. There may be fewer groups on it then.
pub const GROUPS_PAGE_BYTES: usize = 4 << 20;

/// Events that a source may emit in one call.
pub const POLL_EVENTS_MAX: u32 = 8192;

/// Longest rest of a source that has nothing, whatever it asks for: its deployment must notice that it should stop, and its own
/// clock may be wrong.
pub const SOURCE_IDLE_MAX: Duration = Duration::from_secs(3600);

/// Failures in a row, other than those that may pass, after which a source is paused if its policy says so.
pub const SOURCE_TRIES: u32 = 2;

/// Wait before a commit that found no room on the disk is tried again.
pub const FULL_WAIT: Duration = Duration::from_secs(1);

/// When more events than this in a row cannot be processed, the component is most likely at fault and not they: the task waits
/// after each, at first so long, doubled each time, up to the last.
pub const POISON_WAIT_AFTER: u32 = 64;
pub const POISON_WAIT_FIRST: Duration = Duration::from_millis(10);
pub const POISON_WAIT_MAX: Duration = Duration::from_secs(1);

/// Wait before a task that could not be started, or that the log refused, is started again.
pub const RESTART_WAIT: Duration = Duration::from_secs(1);

/// What is remembered of what happened to a deployment, and of its earlier revisions to go back to. The oldest go.
pub const HISTORY_MAX: usize = 30;
pub const REVISIONS_MAX: usize = 10;

/// Bytes of the reason of a change. The rest is cut off.
pub const REASON_BYTES_MAX: usize = 1024;

/// How long a new revision has to go well on all of its tasks, unless the update says otherwise, and at most.
pub const PROBATION: Duration = Duration::from_secs(30);
pub const PROBATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often the tasks of an update are looked at until they have proved themselves.
pub const PROBATION_LOOK: Duration = Duration::from_millis(100);

/// How often a new revision may ask in a row that a call is tried again, before the one before it is asked whether it would too.
pub const PROBATION_RETRIES: u32 = 5;

/// Calls in a row that a shadow fails at, or that take it more than so many times as long as the one that works and this much more,
/// until it is not asked any more: it would only slow down what works.
pub const SHADOW_FAILURES_MAX: u32 = 3;
pub const SHADOW_SLOWER: u32 = 10;
pub const SHADOW_SLOW_MIN: Duration = Duration::from_secs(1);

/// Differences of a shadow that are shown for each task, and bytes of one.
pub const DIFFERENCES_MAX: usize = 10;
pub const DIFFERENCE_BYTES_MAX: usize = 512;

/// Events that a revision that makes its state anew may be behind when it takes over: for so long nobody works.
pub const REBUILD_BEHIND: u64 = 10_000;

/// How often a task that follows another one looks how far that has come.
pub const FOLLOW_LOOK: Duration = Duration::from_millis(20);

/// Groups of each partition that a new revision of an aggregate must be able to read before it takes over.
pub const GROUPS_TRIED: usize = 1000;

// The server.

/// How long requests in hand may take when the server stops. Streams are ended at once.
pub const DOOR_PATIENCE: Duration = Duration::from_secs(5);

/// How long calls in hand may take when the server stops: longer than a call may.
pub const TASK_PATIENCE: Duration = Duration::from_secs(10);

/// How much the thread that writes files yields to the others, as `nice` counts. Publishers wait for the log, nobody waits for
/// a file.
pub const ARCHIVE_NICE: i32 = 10;

/// Bytes of log at which publishers wait for the archive, where the disk has four times the space.
pub const LOG_BYTES_MAX: u64 = 8 << 30;

/// The least of it: what is kept for readers, and some segments to work with.
pub const LOG_BYTES_MAX_MIN: u64 = nodata_log::limits::HOT_BYTES + (512 << 20);

/// How often a directory of components is looked at. A file that is as it was a look ago is written whole.
pub const WATCH_LOOK: Duration = Duration::from_millis(250);

// The command line.

/// Bytes of one request of `nodata publish`.
pub const PUBLISH_BYTES: usize = 1 << 20;

/// Requests that `nodata publish` reads ahead of the network.
pub const PUBLISH_READ_AHEAD: usize = 8;

/// Bytes of its input that `nodata publish` reads at once.
pub const READ_BYTES: usize = 1 << 20;

/// Longest line of a file, or row of a table, that `nodata publish` reads. A longer one stops it with the line's number.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// How often a command that waits for an update looks how it goes.
pub const WAIT_LOOK: Duration = Duration::from_millis(200);

/// Bytes of one message of an upload.
pub const UPLOAD_CHUNK_BYTES: usize = 256 << 10;
