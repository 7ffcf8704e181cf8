//! Returns without giving back the handles it was lent. The bindings do not let a guest do that, so this one exports its
//! function by hand.

// Keeps the description of the world in the component.
use nodata_runtime_guests as _;

#[unsafe(export_name = "nodata:streaming/transformer@0.1.0#process")]
extern "C" fn process(_batch: i32, _collector: i32) -> *const u8 {
    // The first case of a result, and room for what the second would hold.
    static OK: [u32; 4] = [0; 4];
    (&raw const OK).cast()
}
