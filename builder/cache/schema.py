"""The tables of the store's database (docs/formats/store.md explains each)."""

from __future__ import annotations

VERSION = 1
"""The layout this code reads and writes: the tables below and the directories beside them."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs(
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created_ns INTEGER NOT NULL,
  last_used_ns INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots(
  id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, kind TEXT NOT NULL, chain_id TEXT UNIQUE,
  driver TEXT NOT NULL, created_ns INTEGER NOT NULL, last_used_ns INTEGER NOT NULL,
  uses INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT -1, description TEXT NOT NULL,
  record_type TEXT NOT NULL, owner TEXT, boot TEXT NOT NULL, committed_mono_ns INTEGER NOT NULL DEFAULT 0,
  content_digest TEXT, flat INTEGER);
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots(parent);
CREATE INDEX IF NOT EXISTS snapshots_owner ON snapshots(owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS lazy_snapshots(
  snapshot INTEGER PRIMARY KEY, kind TEXT NOT NULL, source INTEGER, lower INTEGER);
CREATE TABLE IF NOT EXISTS snapshot_layers(
  snapshot INTEGER NOT NULL, compression TEXT NOT NULL, diff_id TEXT NOT NULL, digest TEXT NOT NULL,
  descriptor TEXT NOT NULL, PRIMARY KEY(snapshot, compression)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS snapshot_layers_digest ON snapshot_layers(digest);
CREATE TABLE IF NOT EXISTS records(
  key TEXT PRIMARY KEY, op TEXT NOT NULL, name TEXT NOT NULL, outputs TEXT NOT NULL,
  created_ns INTEGER NOT NULL, last_used_ns INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_op ON records(op, created_ns);
CREATE INDEX IF NOT EXISTS records_name ON records(name, created_ns);
CREATE TABLE IF NOT EXISTS record_parts(key TEXT PRIMARY KEY, parts BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record_outputs(
  snapshot INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY(snapshot, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images(
  manifest TEXT PRIMARY KEY, id TEXT NOT NULL, descriptor TEXT NOT NULL, created_ns INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_id ON images(id);
CREATE TABLE IF NOT EXISTS image_names(
  ref TEXT PRIMARY KEY, manifest TEXT NOT NULL, stored_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS image_names_manifest ON image_names(manifest);
CREATE TABLE IF NOT EXISTS cache_mounts(
  dir TEXT PRIMARY KEY, id TEXT NOT NULL, instance INTEGER NOT NULL, sharing TEXT NOT NULL,
  created_ns INTEGER NOT NULL, last_used_ns INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL DEFAULT -1) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cache_mounts_id ON cache_mounts(id, instance);
CREATE TABLE IF NOT EXISTS containers(
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image_id TEXT NOT NULL, snapshot INTEGER,
  created_ns INTEGER NOT NULL, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS volumes(
  name TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, anonymous INTEGER NOT NULL, data TEXT NOT NULL)
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS docs(
  kind TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, used_ns INTEGER NOT NULL, UNIQUE(kind, key));
CREATE TABLE IF NOT EXISTS builds(
  id TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, completed_ns INTEGER, status TEXT NOT NULL,
  owner TEXT, pinned INTEGER NOT NULL DEFAULT 0, data TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS builds_created ON builds(created_ns);
CREATE INDEX IF NOT EXISTS builds_owner ON builds(owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS events(
  id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
  actor TEXT NOT NULL, attrs TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_time ON events(time_ns);
CREATE TABLE IF NOT EXISTS trash(path TEXT PRIMARY KEY) WITHOUT ROWID;
"""
