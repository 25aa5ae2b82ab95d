// Manifests, indexes and image configurations as registries and archives send them. What is accepted is printed, and
// what was printed is read as the same.
#include "fuzz/finding.h"
#include "fuzz/json_mutator.h"
#include "image/signature_policy.h"
#include "spec/image_docs.h"

using namespace kelp;

namespace {

template <typename Parse, typename Print>
void round_trip(std::string_view text, Parse&& parse, Print&& print, const char* what) {
  std::string printed;
  if (!fuzz::accepted([&] { printed = print(parse(text, what)); })) return;
  std::string again;
  if (!fuzz::accepted([&] { again = print(parse(printed, what)); }))
    fuzz::finding("what was printed is refused", printed);
  if (printed != again) fuzz::finding("what was printed reads as another", printed + "\n" + again);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  round_trip(text, spec::parse_manifest, spec::print_manifest, "manifest");
  round_trip(text, spec::parse_index, spec::print_index, "index");
  round_trip(text, spec::parse_image_config, spec::print_image_config, "config");
  round_trip(text, spec::parse_run_config, spec::print_run_config, "config");
  (void)fuzz::accepted([&] { (void)spec::is_index_document(text, "", "document"); });
  (void)fuzz::accepted([&] {
    const spec::ImageIndex index = spec::parse_index(text, "index");
    const spec::Descriptor* chosen =
        spec::choose_platform(index, {.os = "linux", .architecture = "arm64", .variant = "v8"});
    if (chosen != nullptr && (!chosen->platform || chosen->platform->architecture != "arm64"))
      fuzz::finding("an image for another platform was chosen", text);
  });
  (void)fuzz::accepted([&] { (void)image::SignaturePolicy::parse(text, "policy.json"); });
  return 0;
}

KELP_FUZZ_JSON
