// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Names every type of the contract, for the compiler writes BTF only of what is used. Never loaded.
 */
#include "contract.h"

enum mark mark;
enum slot slot;
enum limit limit;
enum action action;
enum field field;
enum ref ref;
enum capacity capacity;
enum exemption exemption;
enum counter counter;
enum memory_by memory_by;
struct memory_key memory_key;
struct memory memory;
struct settings settings;
struct control control;
struct device device;
struct flow_key flow_key;
struct flow flow;
enum event event;
struct held held;
struct opening_event opening_event;
enum release release;
struct releasing releasing;
struct watching watching;
struct watched watched;
struct verdict verdict;
struct dimension dimension;
struct node node;
struct ruleset ruleset;
struct rule_count rule_count;
struct log_entry log_entry;
enum direction direction;
enum pair_state pair_state;
enum unfit unfit;
enum splice_counter splice_counter;
enum fastpath_counter fastpath_counter;
struct admission admission;
struct arming arming;
struct carriage carriage;
struct leg leg;
struct pair_event pair_event;
enum hook hook;
struct trace_target trace_target;
struct trace_event trace_event;
