#include "cli/commands.h"

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"

namespace kelp::cli {
namespace {

constexpr std::string_view kContainers = "Containers", kImages = "Images", kVolumes = "Volumes", kSecrets = "Secrets",
                           kSystem = "System";

// Sorted as the help shows them: by group, then by what people use most.
constexpr Command kCommands[] = {
    {"run", "container run", kContainers, "run a command in a new container", define_run},
    {"create", "container create", kContainers, "make a container without starting it", define_create},
    {"start", "container start", kContainers, "start stopped or created containers", define_start},
    {"init", "container init", kContainers, "set containers up without executing their commands", define_init},
    {"stop", "container stop", kContainers, "stop running containers", define_stop},
    {"restart", "container restart", kContainers, "stop containers and start them again", define_restart},
    {"kill", "container kill", kContainers, "send a signal to containers", define_kill},
    {"pause", "container pause", kContainers, "freeze all processes of containers", define_pause},
    {"unpause", "container unpause", kContainers, "thaw paused containers", define_unpause},
    {"rm", "container rm", kContainers, "remove containers", define_rm},
    {"wait", "container wait", kContainers, "wait until containers end and print their exit codes", define_wait},
    {"ps", "container ps, container ls, container list", kContainers, "list containers", define_ps},
    {"exec", "container exec", kContainers, "run another process in a running container", define_exec},
    {"attach", "container attach", kContainers, "connect to the streams of a running container", define_attach},
    {"logs", "container logs", kContainers, "print the output of containers", define_logs},
    {"top", "container top", kContainers, "list the processes of a container", define_top},
    {"stats", "container stats", kContainers, "show what containers use", define_stats},
    {"port", "container port", kContainers, "list published ports", define_port},
    {"update", "container update", kContainers, "change limits and settings of a container", define_update},
    {"rename", "container rename", kContainers, "give a container another name", define_rename},
    {"cp", "container cp", kContainers, "copy files between a container and the host", define_cp},
    {"export", "container export", kContainers, "write a container's file system as a tar archive", define_export},
    {"mount", "container mount", kContainers, "mount the root file system of a container, within kelp unshare",
     define_mount},
    {"unmount", "umount, container unmount, container umount", kContainers, "undo kelp mount", define_unmount},
    {"container cleanup", "", kContainers, "take away what a killed monitor has left of a container", define_cleanup},
    {"isolation", "container isolation", kContainers, "show what a container can see, use and touch", define_isolation},
    {"healthcheck run", "", kContainers, "run the health check of a container once", define_healthcheck_run},
    {"commit", "container commit", kContainers, "make an image from a container", define_commit},
    {"diff", "", kContainers, "list the files that a container or an image changes", define_diff},
    {"container diff", "", kContainers, "list the files that a container has changed", define_container_diff},
    {"container inspect", "", kContainers, "print all about containers as JSON", define_container_inspect},
    {"container exists", "", kContainers, "exit with 0 when the container exists, with 1 when not",
     define_container_exists},
    {"container prune", "", kContainers, "remove all stopped containers", define_container_prune},

    {"pull", "image pull", kImages, "fetch an image from a registry", define_pull},
    {"push", "image push", kImages, "send an image to a registry", define_push},
    {"login", "", kImages, "log in to a registry", define_login},
    {"logout", "", kImages, "log out of a registry", define_logout},
    {"search", "image search", kImages, "look for images in registries", define_search},
    {"images", "image ls, image list", kImages, "list images", define_images},
    {"rmi", "image rm", kImages, "remove images", define_rmi},
    {"tag", "image tag", kImages, "give an image another name", define_tag},
    {"untag", "image untag", kImages, "take names from an image", define_untag},
    {"history", "image history", kImages, "show how an image was made", define_history},
    {"load", "image load", kImages, "load images from an archive", define_load},
    {"save", "image save", kImages, "save images as an archive", define_save},
    {"import", "image import", kImages, "make an image from a file system archive", define_import},
    {"image inspect", "", kImages, "print all about images as JSON", define_image_inspect},
    {"image diff", "", kImages, "list the files that an image changes in what it is based on", define_image_diff},
    {"image exists", "", kImages, "exit with 0 when the image is stored, with 1 when not", define_image_exists},
    {"image prune", "", kImages, "remove images that have no name", define_image_prune},
    {"image trust", "", kImages, "signatures are not supported", define_image_signatures, true},
    {"image sign", "", kImages, "signatures are not supported", define_image_signatures, true},
    {"image tree", "", kImages, "show the layers of an image", define_image_tree},

    {"manifest create", "", kImages, "make an image index", define_manifest_create},
    {"manifest add", "", kImages, "put images into an index", define_manifest_add},
    {"manifest annotate", "", kImages, "describe an image of an index", define_manifest_annotate},
    {"manifest remove", "", kImages, "take an image out of an index", define_manifest_remove},
    {"manifest inspect", "", kImages, "print an index or a manifest", define_manifest_inspect},
    {"manifest exists", "", kImages, "exit with 0 when the index is stored, with 1 when not", define_manifest_exists},
    {"manifest push", "", kImages, "send an index and its images to a registry", define_manifest_push},
    {"manifest rm", "", kImages, "remove indexes", define_manifest_rm},

    {"volume create", "", kVolumes, "make a volume", define_volume_create},
    {"volume ls", "volume list", kVolumes, "list volumes", define_volume_ls},
    {"volume inspect", "", kVolumes, "print all about volumes as JSON", define_volume_inspect},
    {"volume exists", "", kVolumes, "exit with 0 when the volume exists, with 1 when not", define_volume_exists},
    {"volume export", "", kVolumes, "write the files of a volume as a tar archive", define_volume_export},
    {"volume import", "", kVolumes, "fill a volume from a tar archive", define_volume_import},
    {"volume mount", "", kVolumes, "print where the files of a volume are", define_volume_mount},
    {"volume unmount", "volume umount", kVolumes, "the counterpart of volume mount", define_volume_unmount},
    {"volume reload", "", kVolumes, "take up volumes whose record is missing", define_volume_reload},
    {"volume rm", "volume remove", kVolumes, "remove volumes", define_volume_rm},
    {"volume prune", "", kVolumes, "remove volumes that no container uses", define_volume_prune},

    {"secret create", "", kSecrets, "keep a secret from a file, standard input or the environment",
     define_secret_create},
    {"secret ls", "secret list", kSecrets, "list secrets", define_secret_ls},
    {"secret inspect", "", kSecrets, "print all about secrets as JSON, but for their values", define_secret_inspect},
    {"secret exists", "", kSecrets, "exit with 0 when the secret exists, with 1 when not", define_secret_exists},
    {"secret rm", "secret remove", kSecrets, "remove secrets", define_secret_rm},

    {"events", "system events", kSystem, "show what happens to containers, images and volumes", define_events},
    {"inspect", "", kSystem, "print all about containers, images or volumes as JSON", define_inspect},
    {"info", "system info", kSystem, "show what the host offers and where things are kept", define_info},
    {"doctor", "system doctor", kSystem, "look for what this host lacks, and say how to mend it", define_doctor},
    {"system df", "", kSystem, "show what takes how much of the disk", define_system_df},
    {"store verify", "", kSystem, "look for damage in the store, and mend it", define_store_verify},
    {"store gc", "", kSystem, "remove what nothing in the store needs", define_store_gc},
    {"version", "", kSystem, "show the version", define_version},
    {"system prune", "", kSystem, "remove what is not used: containers, images, volumes", define_system_prune},
    {"system check", "", kSystem, "look for damage in the store", define_system_check},
    {"system import", "", kSystem, "bring images and volumes of podman or Docker over", define_system_import},
    {"system migrate", "", kSystem, "start the user namespace anew", define_system_migrate},
    {"system reset", "", kSystem, "remove everything that kelp keeps", define_system_reset},
    {"completion", "", kSystem, "print the completion script of a shell", define_completion},
    {"unshare", "", kSystem, "run a command in the user namespace of the containers", define_unshare},

    {"__complete", "", kSystem, "print what TAB may insert", define_complete, true},
    {"__dump-options", "", kSystem, "print the tree of commands and options as JSON", define_dump_options, true},
};

constexpr CommandGroup kGroups[] = {
    {"container", "all about containers"}, {"healthcheck", "health checks of containers"},
    {"image", "all about images"},         {"manifest", "all about image indexes"},
    {"secret", "all about secrets"},       {"store", "all about what is kept on disk"},
    {"system", "all about kelp itself"},   {"volume", "all about volumes"},
};

bool has_alias(const Command& command, std::string_view name) {
  std::string_view rest = command.aliases;
  while (!rest.empty()) {
    const size_t comma = rest.find(", ");
    if (rest.substr(0, comma) == name) return true;
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 2);
  }
  return false;
}

}  // namespace

std::span<const Command> commands() { return kCommands; }
std::span<const CommandGroup> command_groups() { return kGroups; }

const Command* find_command_named(std::string_view name) {
  for (const Command& command : kCommands) {
    if (command.name == name || has_alias(command, name)) return &command;
  }
  return nullptr;
}

const Command* find_command(const Strings& words, size_t& used) {
  if (words.size() >= 2) {
    used = 2;
    if (const Command* command = find_command_named(words[0] + " " + words[1])) return command;
  }
  used = 1;
  return words.empty() ? nullptr : find_command_named(words[0]);
}

Strings command_aliases(const Command& command) {
  Strings names;
  for (auto& part : split(command.aliases, ',')) names.emplace_back(trim(part));
  return names;
}

void throw_unknown_command(const Strings& words) {
  const bool in_group = [&] {
    for (const CommandGroup& group : kGroups) {
      if (group.name == words[0]) return true;
    }
    return false;
  }();
  const std::string prefix = in_group ? words[0] + " " : "";
  if (in_group && words.size() < 2) {
    throw UsageError(fmt::format("kelp {}: a command is missing", words[0]))
        .with_hint(fmt::format("see 'kelp {} --help'", words[0]));
  }
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    if (starts_with(name, prefix)) names.emplace_back(name.substr(prefix.size()));
  };
  for (const Command& command : kCommands) {
    if (command.hidden) continue;
    add(command.name);
    for (const auto& alias : command_aliases(command)) add(alias);
  }
  if (!in_group) {
    for (const CommandGroup& group : kGroups) names.emplace_back(group.name);
  }
  const std::string& word = words[in_group ? 1 : 0];
  const std::string near = nearest(word, names);
  UsageError error(fmt::format("unknown command {}", quoted(prefix + word)));
  error.with_hint(near.empty() ? fmt::format("see 'kelp {}--help'", prefix)
                               : fmt::format("did you mean 'kelp {}{}'?", prefix, near));
  throw error;
}

}  // namespace kelp::cli
