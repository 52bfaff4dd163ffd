// Which control groups limit this process: version 2 has one tree without a name, version 1 one for each controller.
#include "sigma_system.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int read_line(const char *path, char *line, int32_t length) {
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    const int found = fgets(line, length, file) != NULL;
    fclose(file);
    if (found) line[strcspn(line, "\n")] = 0;
    return found;
}

static int is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

// Whether a list such as "cpu,cpuacct" has the name.
static int has_name(const char *list, size_t length, const char *name) {
    const size_t wanted = strlen(name);
    for (const char *end = list + length; list < end;) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const size_t part = (size_t)((comma ? comma : end) - list);
        if (part == wanted && memcmp(list, name, part) == 0) return 1;
        list += part + 1;
    }
    return 0;
}

// Sets the walk to the group at `path` ("/" is the root) of one tree. A container often sees a path that is not in its own tree: then its root is
// the nearest group there is.
static int begin(sigma_group *group, const char *root, int32_t version, const char *controller, const char *path) {
    const int length = version == 2 ? snprintf(group->folder, sizeof group->folder, "%s", root)
                                    : snprintf(group->folder, sizeof group->folder, "%s/%s", root, controller);
    if (length < 0 || length >= (int)sizeof group->folder || !is_folder(group->folder)) return 0;
    group->version = version;
    group->root_length = length;
    if (strcmp(path, "/") == 0) return 1;
    if (snprintf(group->folder + length, sizeof group->folder - (size_t)length, "%s", path) >= (int)sizeof group->folder - length)
        group->folder[length] = 0;
    return 1;
}

int sigma_first_group(sigma_group *group, const char *root, const char *membership, const char *controller) {
    char line[4096], own[4096] = "";
    FILE *file = fopen(membership, "re");
    if (!file) {
        return begin(group, root, 1, controller, "/") || begin(group, root, 2, controller, "/");
    }
    int found = 0;
    while (fgets(line, sizeof line, file)) {
        // hierarchy:controllers:path
        line[strcspn(line, "\n")] = 0;
        const char *first = strchr(line, ':');
        const char *second = first ? strchr(first + 1, ':') : NULL;
        if (!second || second[1] != '/') continue;
        if (has_name(first + 1, (size_t)(second - first - 1), controller)) {
            // Some systems mount a tree under the names of all its controllers only.
            char all[256];
            snprintf(all, sizeof all, "%.*s", (int)(second - first - 1), first + 1);
            found = begin(group, root, 1, controller, second + 1) || begin(group, root, 1, all, second + 1);
            if (found) break;
        }
        if (strncmp(line, "0::", 3) == 0) snprintf(own, sizeof own, "%s", second + 1);
    }
    fclose(file);
    // Where both are mounted, a controller belongs to version 1 if that names it.
    return found || (own[0] && begin(group, root, 2, controller, own));
}

int sigma_next_group(sigma_group *group) {
    char *slash = strrchr(group->folder + group->root_length, '/');
    if (!slash) return 0;
    *slash = 0;
    return 1;
}

int sigma_group_line(const sigma_group *group, const char *file, char *line, int32_t length) {
    char path[4096 + 64];
    if (snprintf(path, sizeof path, "%s/%s", group->folder, file) >= (int)sizeof path) return 0;
    return read_line(path, line, length);
}
