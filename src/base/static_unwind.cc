// Belongs to plain static programs alone (see link_static in meson.build). Their start file registers the unwind tables
// by hand, and what is registered by hand is copied and sorted at the first throw: 0.7 ms and 200 KB of the monitor.
// The linker calls these in its place; the unwinder then finds the sorted index that lies in the program
// (.eh_frame_hdr, which the linker makes for a static program only when told to).

extern "C" {
// The names are the linker's (--wrap).
// NOLINTBEGIN(bugprone-reserved-identifier)
void __wrap___register_frame_info(const void* begin, void* object);
void* __wrap___deregister_frame_info(const void* begin);

void __wrap___register_frame_info(const void* /*begin*/, void* /*object*/) {}
void* __wrap___deregister_frame_info(const void* /*begin*/) { return nullptr; }
// NOLINTEND(bugprone-reserved-identifier)
}
