#pragma once

#include "cli/commands.h"

/// The functions behind the table in commands.cc, each in the file of its command: they declare the command's options
/// in `options` and return its action.
namespace kelp::cli {

Action define_attach(OptionSet& options);
Action define_cleanup(OptionSet& options);
Action define_commit(OptionSet& options);
Action define_complete(OptionSet& options);
Action define_completion(OptionSet& options);
Action define_container_diff(OptionSet& options);
Action define_container_exists(OptionSet& options);
Action define_container_inspect(OptionSet& options);
Action define_container_prune(OptionSet& options);
Action define_cp(OptionSet& options);
Action define_create(OptionSet& options);
Action define_diff(OptionSet& options);
Action define_doctor(OptionSet& options);
Action define_dump_options(OptionSet& options);
Action define_events(OptionSet& options);
Action define_exec(OptionSet& options);
Action define_export(OptionSet& options);
Action define_healthcheck_run(OptionSet& options);
Action define_history(OptionSet& options);
Action define_image_exists(OptionSet& options);
Action define_image_inspect(OptionSet& options);
Action define_image_prune(OptionSet& options);
Action define_image_tree(OptionSet& options);
Action define_images(OptionSet& options);
Action define_import(OptionSet& options);
Action define_info(OptionSet& options);
Action define_inspect(OptionSet& options);
Action define_kill(OptionSet& options);
Action define_load(OptionSet& options);
Action define_login(OptionSet& options);
Action define_logout(OptionSet& options);
Action define_logs(OptionSet& options);
Action define_manifest_add(OptionSet& options);
Action define_manifest_annotate(OptionSet& options);
Action define_manifest_create(OptionSet& options);
Action define_manifest_exists(OptionSet& options);
Action define_manifest_inspect(OptionSet& options);
Action define_manifest_push(OptionSet& options);
Action define_manifest_remove(OptionSet& options);
Action define_manifest_rm(OptionSet& options);
Action define_mount(OptionSet& options);
Action define_pause(OptionSet& options);
Action define_port(OptionSet& options);
Action define_ps(OptionSet& options);
Action define_pull(OptionSet& options);
Action define_push(OptionSet& options);
Action define_rename(OptionSet& options);
Action define_restart(OptionSet& options);
Action define_rm(OptionSet& options);
Action define_rmi(OptionSet& options);
Action define_run(OptionSet& options);
Action define_save(OptionSet& options);
Action define_search(OptionSet& options);
Action define_secret_create(OptionSet& options);
Action define_secret_exists(OptionSet& options);
Action define_secret_inspect(OptionSet& options);
Action define_secret_ls(OptionSet& options);
Action define_secret_rm(OptionSet& options);
Action define_start(OptionSet& options);
Action define_stats(OptionSet& options);
Action define_stop(OptionSet& options);
Action define_store_gc(OptionSet& options);
Action define_store_verify(OptionSet& options);
Action define_system_check(OptionSet& options);
Action define_system_df(OptionSet& options);
Action define_system_migrate(OptionSet& options);
Action define_system_prune(OptionSet& options);
Action define_system_reset(OptionSet& options);
Action define_tag(OptionSet& options);
Action define_top(OptionSet& options);
Action define_unmount(OptionSet& options);
Action define_unpause(OptionSet& options);
Action define_unshare(OptionSet& options);
Action define_untag(OptionSet& options);
Action define_update(OptionSet& options);
Action define_version(OptionSet& options);
Action define_volume_create(OptionSet& options);
Action define_volume_exists(OptionSet& options);
Action define_volume_export(OptionSet& options);
Action define_volume_import(OptionSet& options);
Action define_volume_inspect(OptionSet& options);
Action define_volume_ls(OptionSet& options);
Action define_volume_mount(OptionSet& options);
Action define_volume_prune(OptionSet& options);
Action define_volume_reload(OptionSet& options);
Action define_volume_rm(OptionSet& options);
Action define_volume_unmount(OptionSet& options);
Action define_wait(OptionSet& options);

}  // namespace kelp::cli
