//! Every bound of the runtime, with its reason and with what happens at it.

use std::time::Duration;

// What may be uploaded.

/// Largest component file in bytes. Interpreters in wasm are the largest ones: Python has 18 MB, JavaScript 12 MB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// Most functions in all modules of a component. JavaScript engines have some 30 000.
pub const FUNCTIONS_MAX: u64 = 200_000;

/// Largest body of one function in bytes. The time to compile one grows faster than its size.
pub const FUNCTION_BYTES_MAX: usize = 2 << 20;

/// How deep components may lie in each other. Composed components are two or three deep.
pub const NESTING_MAX: usize = 16;

/// Most core modules and components in a component.
pub const MODULES_MAX: u64 = 256;

/// Most instances that a component makes of its modules. One small file could ask for millions.
pub const STORE_INSTANCES_MAX: usize = 200;

/// Most imports of a component, and of each module in it. Python imports about 60 interfaces.
pub const IMPORTS_MAX: u64 = 10_000;

/// Most data segments in all modules of a component.
pub const DATA_SEGMENTS_MAX: u64 = 100_000;

// How it is compiled.

/// Longest compilation by the clock. A JavaScript engine needs 15 seconds of a processor that has nothing else to do.
pub const COMPILE_WALL: Duration = Duration::from_secs(300);

/// Processor time of one compilation, in seconds.
pub const COMPILE_CPU_SECS: u64 = 120;

/// Memory of one compilation in bytes, as address space.
pub const COMPILE_MEMORY_BYTES: u64 = 4 << 30;

/// How much the compiler gives way to everybody else (`nice`).
pub const COMPILE_NICE: i32 = 10;

/// Largest compiled component in bytes: about four times the largest file.
pub const COMPILED_BYTES_MAX: u64 = 256 << 20;

/// Bytes of what the compiler says when it fails that are kept.
pub const COMPILE_MESSAGE_BYTES_MAX: u64 = 16 << 10;

// How an instance runs.

/// Milliseconds of one tick. A guest that computes gives way to its neighbours once a tick, and processor time is counted
/// in ticks. Shorter ones would cost switches, longer ones would make neighbours wait.
pub const TICK_MS: u64 = 10;

/// Ticks without a call until the thread that ticks sleeps: it need not be woken for each call while there are many.
pub const TICKS_WITHOUT_CALLS: usize = 10;

/// Weight of a deployment where guest threads are scarce: whoever has twice as much has twice the time. A deployment between the
/// bounds may be a hundred times more important than usual, or a hundred times less, and is still served.
pub const CPU_WEIGHT: u32 = 100;
pub const CPU_WEIGHT_MIN: u32 = 1;
pub const CPU_WEIGHT_MAX: u32 = 10_000;

/// Ticks that a deployment may be behind the others: what it did not ask for is not saved up beyond that. Less, and one that runs on
/// one thread all the time would lose it to one that waits.
pub const CPU_CREDIT_TICKS: u64 = 2;

/// Processor time of one call. At least a tick, because nothing shorter is counted; at most so much that a call which will never end
/// is found out the same day.
pub const CALL_CPU: Duration = Duration::from_secs(5);
pub const CALL_CPU_MIN: Duration = Duration::from_millis(TICK_MS);
pub const CALL_CPU_MAX: Duration = Duration::from_secs(600);

/// Longest call by the clock: what bounds a guest that waits instead of computing. A server that stops does not wait for the longest.
pub const CALL_WALL: Duration = Duration::from_secs(60);
pub const CALL_WALL_MIN: Duration = CALL_CPU_MIN;
pub const CALL_WALL_MAX: Duration = Duration::from_secs(3600);

/// Processor time until an instance has started.
pub const START_CPU: Duration = Duration::from_secs(5);

/// Longest start of an instance by the clock.
pub const START_WALL: Duration = Duration::from_secs(30);

/// Memory of one instance in bytes: the sum of its linear memories. A growth beyond it fails inside the guest.
pub const INSTANCE_MEMORY_BYTES: u64 = 256 << 20;

/// The least of it: the smallest components in Rust begin with 17 pages of 64 KiB. The most is what all have together.
pub const INSTANCE_MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Memory of all instances together in bytes. The one that asks for more is refused.
pub const HOST_MEMORY_BYTES: u64 = 2 << 30;

/// Elements in one table. Python and JavaScript need tens of thousands for their functions.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Tables of one instance.
pub const TABLES_MAX: usize = 64;

/// Linear memories of one instance.
pub const MEMORIES_MAX: usize = 32;

/// Bytes of stack for the code of a guest. Deeper recursion traps.
pub const GUEST_STACK_BYTES: usize = 1 << 20;

/// Bytes of stack for a guest and the host functions it calls. The difference is for the host.
pub const FIBER_STACK_BYTES: usize = 2 << 20;

/// Bytes that one host call may take from a guest. Above the output of a whole call, so that emitting too much is answered
/// and not a trap.
pub const HOSTCALL_BYTES_MAX: usize = 64 << 20;

/// Things of the host that an instance may hold at once: open tables, streams, pollables.
pub const RESOURCES_MAX: usize = 10_000;

/// Bytes of randomness in one call.
pub const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the header fields of one HTTP message.
pub const HTTP_FIELDS_BYTES_MAX: usize = 16 << 10;

/// Header fields of one HTTP answer.
pub const HTTP_FIELDS_MAX: usize = 100;

/// Bytes of the body of one HTTP answer. Larger ones are asked for in parts.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 64 << 20;

/// HTTP requests of a deployment at once, over all of its tasks. One more waits.
pub const HTTP_REQUESTS_MAX: usize = 64;

/// Until a name is resolved, and until there is a connection, each.
pub const HTTP_CONNECT: Duration = Duration::from_secs(10);

/// Until an answer begins, and between two parts of it, unless the component says otherwise. A call has an end of its own.
pub const HTTP_WAIT: Duration = Duration::from_secs(30);

/// Addresses of one name that are tried.
pub const HTTP_ADDRESSES_MAX: usize = 4;

/// How long a connection without requests is kept.
pub const HTTP_IDLE: Duration = Duration::from_secs(30);

/// Connections without requests that are kept for one origin.
pub const HTTP_CONNECTIONS_KEPT: usize = 16;

/// Names that are resolved at once, for all deployments: each takes a thread.
pub const HTTP_NAMES_AT_ONCE: usize = 16;

/// How much guests give way to the threads of the log and the network (`nice`). A little: a busy guest must not be what a
/// publisher waits for, and must not starve either.
pub const GUEST_NICE: i32 = 2;

// What one call may be given and may give back.

/// Events that one call is given at most: as many as a batch holds.
pub const INPUT_EVENTS_MAX: usize = nodata_log::limits::BATCH_EVENTS_MAX;

/// Bytes of ids, keys, values and headers that one call is given at most: as many as a transaction holds.
pub const INPUT_BYTES_MAX: u64 = nodata_log::limits::FRAME_BYTES_MAX;

/// Bytes of ids, keys, values and headers that one call may emit. Emitting more is answered with `budget-exceeded`.
pub const OUTPUT_BYTES_MAX: u64 = 32 << 20;

/// The least that a call may be allowed to emit: less would not hold one event of some length.
pub const OUTPUT_BYTES_MIN: u64 = 64 << 10;

/// Events that one call may emit. Emitting more is answered with `budget-exceeded`.
pub const OUTPUT_EVENTS_MAX: u64 = 1 << 18;

/// Bytes of keys and values that one call may write to state tables. Writing more is answered with `quota-exceeded`.
pub const STATE_WRITE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of keys and values that the state tables of a task may have. What would be more is answered with `quota-exceeded`. They are
/// on the disk and not in memory. A million groups of an aggregate have some hundred megabytes.
pub const STATE_BYTES: u64 = 4 << 30;
pub const STATE_BYTES_MIN: u64 = 64 << 10;
pub const STATE_BYTES_MAX: u64 = 1 << 40;

/// Bytes that a component may save of its memory. They are written whole with each call that changed them; saving more is an error of
/// the call.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// Bytes of an accumulator of an aggregate, which is a value in a table too. Each is read and written whole with every batch that has
/// an event of its group.
pub const ACCUMULATOR_BYTES_MAX: usize = nodata_log::limits::STATE_VALUE_BYTES_MAX;

/// Keys that a guest may get or put at once. They are copied before they are looked up.
pub const STATE_KEYS_MAX: usize = 1 << 16;

/// Bytes of values in one answer of a state table.
pub const STATE_ANSWER_BYTES_MAX: usize = 16 << 20;

/// Bytes of keys and values in one answer to a scan; one entry is always given. The guest goes on from the last key.
pub const STATE_SCAN_BYTES_MAX: usize = 1 << 20;

/// Entries in one answer to a scan.
pub const STATE_SCAN_ENTRIES_MAX: usize = 10_000;

/// What an event costs in a transaction besides its bytes: a timestamp and four lengths.
const EVENT_OVERHEAD_BYTES: u64 = 24;

// Everything that one call did travels in one transaction, and what is left over is for dead letters.
const _: () = assert!(
    OUTPUT_BYTES_MAX + OUTPUT_EVENTS_MAX * EVENT_OVERHEAD_BYTES + STATE_WRITE_BYTES_MAX + (SNAPSHOT_BYTES_MAX as u64)
        < nodata_log::limits::FRAME_BYTES_MAX - (8 << 20)
);

const _: () = assert!(SNAPSHOT_BYTES_MAX <= nodata_log::limits::STATE_VALUE_BYTES_MAX);

// What a guest may say.

/// Bytes of the text of an error. The rest is cut off.
pub const ERROR_BYTES_MAX: usize = 4096;

/// Bytes of a checkpoint of a source. A larger one is refused, as the contract says.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 10;

/// Bytes of the reason why a row was rejected. The rest is cut off, as the contract says.
pub const REJECT_REASON_BYTES_MAX: usize = 1024;

/// Bytes of all reasons in one call. Rows are still rejected beyond it, with as much of the reason as there is room for.
pub const REJECT_REASONS_BYTES_MAX: usize = 4 << 20;

/// Frames of a backtrace.
pub const BACKTRACE_FRAMES_MAX: usize = 32;

/// Bytes of the name of one function in a backtrace. Names of generic functions can fill pages.
pub const FUNCTION_NAME_BYTES_MAX: usize = 256;

/// Lines of standard error that are kept for the report of a trap.
pub const STDERR_TAIL_LINES: usize = 16;

/// Longest line of a log in bytes. The rest is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 4096;

/// Lines that are kept for a deployment. The oldest go first.
pub const LOG_LINES_MAX: usize = 1000;

/// Bytes of lines that are kept for a deployment. The oldest go first.
pub const LOG_BYTES_MAX: usize = 256 << 10;

/// Lines a deployment may write in a second. What is more is counted, and the count is written down. At most so many that the lines
/// of a tenth of a second are still there when somebody looks.
pub const LOG_LINES_PER_SECOND: u32 = 200;
pub const LOG_LINES_PER_SECOND_MIN: u32 = 1;
pub const LOG_LINES_PER_SECOND_MAX: u32 = 10_000;

/// Series of metrics of a deployment. Observations for one more are dropped and counted. All of them are in the answer to whoever
/// describes it, so there cannot be very many.
pub const METRIC_SERIES: usize = 100;
pub const METRIC_SERIES_MIN: usize = 1;
pub const METRIC_SERIES_MAX: usize = 1000;

/// Bytes of the name of a metric. Observations of a longer one are dropped and counted.
pub const METRIC_NAME_BYTES_MAX: usize = 100;

/// Attributes of one observation. Observations with more are dropped and counted.
pub const METRIC_ATTRIBUTES_MAX: usize = 8;

/// Bytes of the name, and of the value, of an attribute. Observations with longer ones are dropped and counted.
pub const METRIC_ATTRIBUTE_BYTES_MAX: usize = 100;

/// Bytes of a key that a guest may ask the configuration for. There is no longer one.
pub const CONFIG_KEY_BYTES_MAX: usize = 1024;

/// Bytes of the name of a port: that a component may describe, and that is repeated in an error.
pub const PORT_BYTES_MAX: usize = 200;

/// Ports that a component may describe. More refuse the deployment.
pub const PORTS_DESCRIBED_MAX: usize = 64;

/// Bytes of what a component says about one of its ports. The rest is cut off, as the contract says.
pub const PORT_ABOUT_BYTES_MAX: usize = 1024;
