// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * BPF programs on the entry and the exit of a function of the kernel, by the
 * bpf() system call alone, so that a guest of busybox can run them.
 *
 *   bpf_trace attach fentry|fexit|fmod_ret|override FUNCTION DIRECTORY
 *   bpf_trace show DIRECTORY
 *   bpf_trace syslog
 *
 * attach pins the link and a map in DIRECTORY, on a bpffs; the program stays until the
 * pins are removed. It counts its runs and keeps of the last one the word 24 bytes into what
 * the first argument points to, which is how much a struct seq_file holds, and, at the
 * exit, what a function of two arguments returned. show prints these three.
 * fmod_ret and override have the function return -EXDEV before it has done
 * anything; override is a kprobe's program with bpf_override_return(), and has no map.
 * syslog prints what syslog(2) says of the size of the kernel's log, or minus the
 * error number.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/perf_event.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEQ_FILE_COUNT	24	/* offset of count in struct seq_file, include/linux/seq_file.h */
#define LOG_SIZE	65536
#define SYSLOG_SIZE	10	/* SYSLOG_ACTION_SIZE_BUFFER, include/linux/syslog.h */
#define TYPE		"/sys/bus/event_source/devices/kprobe/type"

#define INSN(op, to, from, at, value) \
	((struct bpf_insn){ .code = (op), .dst_reg = (to), .src_reg = (from), .off = (at), .imm = (value) })
#define MOV_REG(to, from)	INSN(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0)
#define MOV(to, value)		INSN(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value)
#define ADD(to, value)		INSN(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value)
#define LOAD(to, from, at)	INSN(BPF_LDX | BPF_MEM | BPF_DW, to, from, at, 0)
#define STORE(to, at, from)	INSN(BPF_STX | BPF_MEM | BPF_DW, to, from, at, 0)
#define CALL(function)		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)

struct seen {
	uint64_t runs;
	uint64_t count;
	uint64_t returned;
};

static int bpf(int command, union bpf_attr *attr, const char *what)
{
	int result = syscall(__NR_bpf, command, attr, sizeof(*attr));

	if (result < 0)
		err(1, "%s", what);
	return result;
}

/* The bytes that follow a type's header in BTF (Documentation/bpf/btf.rst). */
static size_t tail(uint32_t info)
{
	switch (BTF_INFO_KIND(info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return sizeof(uint32_t);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return BTF_INFO_VLEN(info) * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return BTF_INFO_VLEN(info) * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return BTF_INFO_VLEN(info) * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO:
		return BTF_INFO_VLEN(info) * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return BTF_INFO_VLEN(info) * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

/* The number that the kernel's BTF gives to a function. */
static int function_id(const char *name)
{
	int file = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	const struct btf_header *header;
	const struct btf_type *type;
	const char *at, *end, *names;
	ssize_t size = 0, got = 1;
	struct stat status;
	char *data;
	int id;

	if (file < 0 || fstat(file, &status))
		err(1, "/sys/kernel/btf/vmlinux");
	data = malloc(status.st_size);
	for (; data && got > 0 && size < status.st_size; size += got)
		got = read(file, data + size, status.st_size - size);
	if (!data || got <= 0)
		err(1, "reading BTF");
	header = (const struct btf_header *)data;
	at = data + header->hdr_len + header->type_off;
	end = at + header->type_len;
	names = data + header->hdr_len + header->str_off;
	for (id = 1; at < end; id++, at += sizeof(*type) + tail(type->info)) {
		type = (const struct btf_type *)at;
		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC && !strcmp(names + type->name_off, name))
			return id;
	}
	errx(1, "the kernel's BTF has no function %s", name);
}

/* Load a program; the verifier's words where it refuses. */
static int verified(union bpf_attr *attr)
{
	static char log[LOG_SIZE];
	int result;

	attr->license = (uintptr_t)"GPL";
	attr->log_level = 1;
	attr->log_buf = (uintptr_t)log;
	attr->log_size = sizeof(log);
	result = syscall(__NR_bpf, BPF_PROG_LOAD, attr, sizeof(*attr));
	if (result < 0)
		err(1, "the verifier says: %s", log);
	return result;
}

static int load(int map, int attach_type, int function)
{
	struct bpf_insn program[] = {
		LOAD(BPF_REG_3, BPF_REG_1, 0),
		/* Behind the two arguments; the entry's program may not look there. */
		attach_type == BPF_TRACE_FEXIT ? LOAD(BPF_REG_7, BPF_REG_1, 16) : MOV(BPF_REG_7, 0),
		ADD(BPF_REG_3, SEQ_FILE_COUNT),
		MOV_REG(BPF_REG_1, BPF_REG_10),
		ADD(BPF_REG_1, -8),
		MOV(BPF_REG_2, 8),
		CALL(BPF_FUNC_probe_read_kernel),
		MOV(BPF_REG_1, 0),
		STORE(BPF_REG_10, -16, BPF_REG_1),
		INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		MOV_REG(BPF_REG_2, BPF_REG_10),
		ADD(BPF_REG_2, -16),
		CALL(BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 5, 0),
		LOAD(BPF_REG_2, BPF_REG_10, -8),
		STORE(BPF_REG_0, offsetof(struct seen, count), BPF_REG_2),
		STORE(BPF_REG_0, offsetof(struct seen, returned), BPF_REG_7),
		MOV(BPF_REG_1, 1),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
		MOV(BPF_REG_0, attach_type == BPF_MODIFY_RETURN ? -EXDEV : 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.expected_attach_type = attach_type,
		.attach_btf_id = function,
		.insns = (uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(*program),
	};

	return verified(&attr);
}

/* A kprobe's program that has the function return at once. */
static int load_override(void)
{
	struct bpf_insn program[] = {
		MOV(BPF_REG_2, -EXDEV),
		CALL(BPF_FUNC_override_return),
		MOV(BPF_REG_0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_KPROBE,
		.insns = (uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(*program),
	};

	return verified(&attr);
}

/* A kprobe on the entry of a function, as a perf event; switched off. */
static int kprobe_event(const char *function)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.kprobe_func = (uintptr_t)function,
		.sample_period = 1,
	};
	FILE *file = fopen(TYPE, "r");
	int event;

	if (!file || fscanf(file, "%u", &attr.type) != 1)
		err(1, TYPE);
	event = syscall(__NR_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (event < 0)
		err(1, "the kprobe on %s", function);
	return event;
}

static void pin(int object, const char *directory, const char *name)
{
	union bpf_attr attr = { .bpf_fd = object };
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	attr.pathname = (uintptr_t)path;
	bpf(BPF_OBJ_PIN, &attr, path);
}

static int attach_type(const char *how)
{
	if (!strcmp(how, "fentry"))
		return BPF_TRACE_FENTRY;
	if (!strcmp(how, "fexit"))
		return BPF_TRACE_FEXIT;
	if (!strcmp(how, "fmod_ret"))
		return BPF_MODIFY_RETURN;
	errx(2, "no way to attach is called %s", how);
}

static void attach(const char *how, const char *function, const char *directory)
{
	union bpf_attr map_attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(uint32_t),
		.value_size = sizeof(struct seen),
		.max_entries = 1,
	};
	union bpf_attr link_attr = { };
	int map;

	map = bpf(BPF_MAP_CREATE, &map_attr, "the map");
	link_attr.raw_tracepoint.prog_fd = load(map, attach_type(how), function_id(function));
	if (mkdir(directory, 0700))
		err(1, "%s", directory);
	pin(map, directory, "map");
	pin(bpf(BPF_RAW_TRACEPOINT_OPEN, &link_attr, function), directory, "link");
}

static void attach_override(const char *function, const char *directory)
{
	union bpf_attr attr = {
		.link_create.prog_fd = load_override(),
		.link_create.target_fd = kprobe_event(function),
		.link_create.attach_type = BPF_PERF_EVENT,
	};

	if (mkdir(directory, 0700))
		err(1, "%s", directory);
	pin(bpf(BPF_LINK_CREATE, &attr, function), directory, "link");
}

static void show(const char *directory)
{
	union bpf_attr path_attr = { }, attr = { };
	struct seen seen;
	uint32_t key = 0;
	char path[256];

	snprintf(path, sizeof(path), "%s/map", directory);
	path_attr.pathname = (uintptr_t)path;
	attr.map_fd = bpf(BPF_OBJ_GET, &path_attr, path);
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&seen;
	bpf(BPF_MAP_LOOKUP_ELEM, &attr, "reading the map");
	printf("%llu %llu %d\n", (unsigned long long)seen.runs, (unsigned long long)seen.count,
	       (int)seen.returned);
}

static void print_syslog(void)
{
	long size = syscall(__NR_syslog, SYSLOG_SIZE, NULL, 0);

	printf("%ld\n", size < 0 ? -errno : size);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "attach") && !strcmp(argv[2], "override"))
		attach_override(argv[3], argv[4]);
	else if (argc == 5 && !strcmp(argv[1], "attach"))
		attach(argv[2], argv[3], argv[4]);
	else if (argc == 3 && !strcmp(argv[1], "show"))
		show(argv[2]);
	else if (argc == 2 && !strcmp(argv[1], "syslog"))
		print_syslog();
	else
		errx(2, "usage: %s attach fentry|fexit|fmod_ret|override FUNCTION DIRECTORY | "
			"show DIRECTORY | syslog", argv[0]);
	return 0;
}
