// Image names and transports as people and archives write them: what is accepted, written out in full, means the same.
#include "fuzz/finding.h"
#include "image/transports/transport_name.h"
#include "spec/image_name.h"

using namespace kelp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  spec::ImageName name;
  if (fuzz::accepted([&] { name = spec::parse_image_name(text); })) {
    if (name.registry.empty() || name.repository.empty()) fuzz::finding("a name without its parts", text);
    // A tag may hold two dots, though not begin with one, and no slash.
    if (name.full().find_first_of(" \n\"'\\") != std::string::npos || name.base().find("..") != std::string::npos ||
        name.tag.starts_with('.') || name.tag.find('/') != std::string::npos)
      fuzz::finding("a name that is no path", name.full());
    for (const spec::ImageName& form : {name, name.tagged()}) {
      spec::ImageName again;
      if (!fuzz::accepted([&] { again = spec::parse_image_name(form.full()); }))
        fuzz::finding("refused in full", form.full());
      if (again != form) fuzz::finding("another name", form.full());
      if (!fuzz::accepted([&] { again = spec::parse_image_name(spec::familiar(form)); }))
        fuzz::finding("refused in short", spec::familiar(form));
      if (again.tagged() != form.tagged()) fuzz::finding("short for another name", spec::familiar(form));
    }
  }
  (void)fuzz::accepted([&] { (void)spec::parse_local_name(text); });
  (void)spec::is_short_name(text);
  (void)spec::local_candidates(text);
  (void)fuzz::accepted([&] {
    const image::TransportName transport = image::parse_transport(text);
    if (transport.transport != "docker" && transport.path.empty()) fuzz::finding("a transport without a path", text);
  });
  return 0;
}
