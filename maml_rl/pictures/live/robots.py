"""Two robots of one model in a scene that viser serves: the adapted one, and the one before adaptation as a ghost."""

from __future__ import annotations

import contextlib
import io

import mujoco
import numpy as np
import viser
from mjviser.conversions import merge_geoms
from numpy.typing import NDArray

from maml_rl.pictures.live.needs import HOST
from maml_rl.pictures.live.session import Session
from maml_rl.pictures.live.show import Robot

Colour = tuple[int, int, int]  # red, green and blue, 0 to 255
ADAPTED: Colour = (222, 110, 38)
BEFORE: Colour = (102, 120, 140)
POST: Colour = (206, 41, 41)
GHOST_OPACITY = 0.45
LANE = 1.2  # between the robots, where they cannot leave their plane [m]
DISTANCE = 3.4  # of the camera, in sizes of the robot
POST_RADIUS, POST_HEIGHT = 0.03, 1.0  # [m]


def _silence() -> contextlib.redirect_stdout[io.StringIO]:
    """A block in which viser prints nothing."""
    return contextlib.redirect_stdout(io.StringIO())


class RobotScene:
    """The scene of a session of robots, at an address of its own; it moves along with the adapted robot."""

    def __init__(self, session: Session, adapted: Robot, before: Robot):
        with _silence():  # its address is not the one to open
            self._server = viser.ViserServer(host=HOST, port=0, label=session.show.title, verbose=False)
        self.url = f"http://{HOST}:{self._server.get_port()}"
        self._robots, model = (adapted, before), adapted.model
        is_free = bool((model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).any())
        lane = 0.0 if is_free else LANE
        self._server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._server.gui.set_panel_label("scene")
        self._server.gui.main_panel.minimize()
        self._server.gui.main_panel.set_width(120)
        scene = self._server.scene
        scene.set_up_direction("+z")
        self._ground = scene.add_frame("/ground", show_axes=False)
        scene.add_grid(
            "/ground/floor",
            infinite_grid=True,
            cell_size=0.25,
            section_size=1.0,
            cell_color=(224, 227, 231),
            section_color=(172, 180, 190),
            fade_distance=30.0,
            plane_color=(246, 247, 249),
            plane_opacity=1.0,
            shadow_opacity=0.25,
        )
        self._figures = (
            _Figure(self._server, "/ground/adapted", model, 0.0, ADAPTED, None),
            _Figure(self._server, "/ground/before", model, lane, BEFORE, GHOST_OPACITY),
        )
        self._post = scene.add_cylinder("/ground/post", radius=POST_RADIUS, height=POST_HEIGHT, color=POST)
        camera, distance = self._server.initial_camera, DISTANCE * self._figures[0].size
        camera.look_at = (0.0, lane / 2, 0.5)
        camera.position = (-0.25 * distance, -distance, 0.5 + 0.35 * distance)
        camera.fov = float(np.deg2rad(40.0))

    def update(self, session: Session) -> None:
        """Show the robots where they are now; the ghost only once they differ."""
        states = [robot.coordinates[0] for robot in self._robots]
        post = self._robots[0].post(0)
        with self._server.atomic():
            place = self._figures[0].update(states[0], is_shown=True)
            self._figures[1].update(states[1], is_shown=session.num_adaptations > 0)
            self._ground.position = (-place[0], -place[1], 0.0)
            self._post.visible = post is not None
            if post is not None:
                self._post.position = (*post, POST_HEIGHT / 2)

    def close(self) -> None:
        """End the server."""
        with _silence():
            self._server.stop()


class _Figure:
    """The bodies of one robot."""

    def __init__(
        self,
        server: viser.ViserServer,
        name: str,
        model: mujoco.MjModel,
        lane: float,
        colour: Colour,
        opacity: float | None,
    ):
        self._model, self._data = model, mujoco.MjData(model)
        self._frame = server.scene.add_frame(name, show_axes=False, position=(0.0, lane, 0.0))
        self._bodies = []
        for body in range(1, model.nbody):  # body 0 is the surroundings, with the floor
            geoms = [int(geom) for geom in np.flatnonzero(model.geom_bodyid == body)]
            if geoms:
                mesh = merge_geoms(model, geoms)
                handle = server.scene.add_mesh_simple(
                    f"{name}/{body}", mesh.vertices, mesh.faces, color=colour, opacity=opacity
                )
                self._bodies.append((body, handle))
        mujoco.mj_kinematics(model, self._data)
        self.size = float(np.ptp(self._data.geom_xpos[model.geom_bodyid > 0], axis=0).max())  # at first [m]

    def update(self, qpos: NDArray[np.float64], is_shown: bool) -> NDArray[np.float64]:
        """Show the robot in a state, or hide it; return the place [3] of its first body. [m]"""
        self._frame.visible = is_shown
        self._data.qpos = qpos
        mujoco.mj_kinematics(self._model, self._data)
        if is_shown:
            for body, handle in self._bodies:
                handle.position, handle.wxyz = self._data.xpos[body], self._data.xquat[body]
        return self._data.xpos[1]


def make_scene(session: Session) -> RobotScene:
    """The scene of a session whose environments are robots."""
    adapted, before = (session.show.robot_of(each.env) for each in (session.adapted, session.before))
    assert adapted is not None and before is not None
    return RobotScene(session, adapted, before)
