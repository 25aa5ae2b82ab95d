#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "engine/images.h"

namespace kelp::cli {
namespace {

struct LoadCommand {
  std::string input;
  bool quiet = false;
};

struct SaveCommand {
  engine::SaveOptions save;
  bool quiet = false;
};

struct ImportCommand {
  engine::ImportOptions import;
  bool quiet = false;
};

int load(Invocation& invocation, const LoadCommand& values) {
  if (values.input.empty() && stdin_is_terminal()) {
    throw UsageError("an archive is not read from a terminal").with_hint("kelp load --input FILE");
  }
  ProgressView progress(values.quiet);
  const auto names = engine::load_images(invocation.context, values.input, progress.callback());
  progress.finish();
  std::string out;
  for (const auto& name : names) out += "Loaded image: " + name + "\n";
  print(out);
  return 0;
}

int save(Invocation& invocation, const SaveCommand& values) {
  const bool archive = values.save.format == "docker-archive" || values.save.format == "oci-archive";
  if (values.save.output.empty() && !archive) throw_usage("--format {} needs --output", values.save.format);
  if (values.save.output.empty() && stdout_is_terminal()) {
    throw UsageError("an archive is not written to a terminal").with_hint("kelp save --output FILE IMAGE");
  }
  ProgressView progress(values.quiet || values.save.output.empty());
  engine::save_images(invocation.context, invocation.arguments, values.save, progress.callback());
  return 0;
}

int import(Invocation& invocation, ImportCommand& values) {
  values.import.source = invocation.arguments[0];
  if (invocation.arguments.size() > 1) values.import.reference = invocation.arguments[1];
  ProgressView progress(values.quiet);
  const std::string id = engine::import_image(invocation.context, values.import, progress.callback());
  progress.finish();
  print_line("sha256:" + id);
  return 0;
}

}  // namespace

Action define_load(OptionSet& options) {
  auto values = std::make_shared<LoadCommand>();
  options.text("input,i", values->input, "FILE", "archive or directory to read")
      .complete(Complete::file)
      .shows("standard input");
  options.flag("quiet,q", values->quiet, "do not show the progress");
  return [values](Invocation& invocation) { return load(invocation, *values); };
}

Action define_save(OptionSet& options) {
  auto values = std::make_shared<SaveCommand>();
  options.arguments("IMAGE...", 1, -1, Complete::image);
  options.text("format", values->save.format, "FORMAT", "shape of the archive")
      .one_of({"docker-archive", "oci-archive", "oci-dir", "docker-dir"})
      .shows("docker-archive");
  options.text("output,o", values->save.output, "FILE", "where to write")
      .complete(Complete::file)
      .shows("standard output");
  options.flag("compress", values->save.compress, "compress the layers of a docker-dir");
  options
      .text("compression-format", values->save.compression_format, "FORMAT",
            "how the layers of an oci-archive or oci-dir are compressed")
      .one_of({"gzip", "zstd"})
      .shows("as kept");
  options.number("compression-level", values->save.compression_level, "N", "level of the compression");
  options.flag("multi-image-archive,m", values->save.multi_image_archive, "several images in one archive");
  options.flag("quiet,q", values->quiet, "do not show the progress");
  return [values](Invocation& invocation) { return save(invocation, *values); };
}

Action define_import(OptionSet& options) {
  auto values = std::make_shared<ImportCommand>();
  options.arguments("FILE|URL|- [NAME]", 1, 2, Complete::file);
  options.list("change,c", values->import.changes, "INSTRUCTION", "instruction of a Containerfile: CMD, ENV, ...");
  options.text("message,m", values->import.message, "TEXT", "comment in the history");
  options.text("os", values->import.os, "OS", "operating system of the image");
  options.text("arch", values->import.arch, "ARCH", "architecture of the image");
  options.text("variant", values->import.variant, "VARIANT", "variant of the architecture");
  options.flag("quiet,q", values->quiet, "do not show the progress");
  options.describe("The archive may be compressed. A URL begins with http:// or https://.",
                   "kelp import root.tar.xz my/base:1\nkelp import https://example.org/root.tar.gz my/base:1");
  return [values](Invocation& invocation) { return import(invocation, *values); };
}

}  // namespace kelp::cli
